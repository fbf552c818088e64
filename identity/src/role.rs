//! Roles and what each may do. What is not listed is denied.

use serde::{Deserialize, Serialize};

/// What the holder of a certificate is to the cluster.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keeps the authority. Given by the authority to itself, never by a token.
    Head,
    /// Runs actors and tasks.
    Worker,
    /// Submits jobs and talks to their actors.
    Client,
    /// Runs the cluster: tokens, nodes, all jobs.
    Operator,
    /// Looks, and changes nothing.
    Observer,
    /// A process of one job, a driver or a worker. Given for a process that the head knows, never by a token.
    Process,
}

/// Something that a peer wants to do. Every kind of request, and every route of the dashboard, declares the one that it needs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Capability {
    /// See nodes, jobs, actors, metrics and logs.
    Observe,
    /// Be a node: accept connections of others, host actors, run tasks, hold objects.
    BeANode,
    /// Call actors and read objects.
    Call,
    /// Submit jobs, executables among them, and stop one's own.
    SubmitJobs,
    /// Stop anybody's jobs and actors.
    ManageJobs,
    /// Create, list and revoke tokens.
    ManageTokens,
    /// Drain and revoke nodes.
    ManageNodes,
    /// Tell others what the cluster has decided: members, revocations, placements.
    Lead,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 6] = [Role::Head, Role::Worker, Role::Client, Role::Operator, Role::Observer, Role::Process];

    /// The word for it, as in certificates and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Head => "head",
            Role::Worker => "worker",
            Role::Client => "client",
            Role::Operator => "operator",
            Role::Observer => "observer",
            Role::Process => "process",
        }
    }

    /// True if it may; whatever is not listed here is denied.
    pub fn may(self, capability: Capability) -> bool {
        self.capabilities().contains(&capability)
    }

    /// True if a token may give it.
    pub const fn by_token(self) -> bool {
        !matches!(self, Role::Head | Role::Process)
    }

    /// True for those who accept connections, and so need a certificate that serves.
    pub const fn is_node(self) -> bool {
        matches!(self, Role::Head | Role::Worker | Role::Process)
    }

    /// True for people, whose certificates cannot serve, and who are in no list of nodes.
    pub const fn is_person(self) -> bool {
        matches!(self, Role::Client | Role::Operator | Role::Observer)
    }

    const fn capabilities(self) -> &'static [Capability] {
        use Capability as C;
        match self {
            Role::Head => &[C::Observe, C::BeANode, C::Call, C::Lead],
            // A worker that is taken over mints no tokens and submits no jobs.
            Role::Worker => &[C::BeANode, C::Call],
            Role::Client => &[C::Observe, C::Call, C::SubmitJobs],
            Role::Operator => &[C::Observe, C::Call, C::SubmitJobs, C::ManageJobs, C::ManageTokens, C::ManageNodes],
            Role::Observer => &[C::Observe],
            // What it calls is of its own job: its certificate says which.
            Role::Process => &[C::Call],
        }
    }

    /// The one role of a peer, asked for name by name; a certificate that bears several or none gives none.
    pub(crate) fn of(has: impl Fn(Role) -> bool) -> Option<Role> {
        let mut roles = Role::ALL.into_iter().filter(|role| has(*role));
        roles.next().filter(|_| roles.next().is_none())
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or(UnknownRole)
    }
}

/// There is no such role.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a role: it is one of worker, client, operator, observer")]
pub struct UnknownRole;

#[cfg(test)]
mod tests {
    use super::*;

    /// The table, written a second time and the other way round.
    #[test]
    fn each_capability_belongs_to_those_listed_and_to_nobody_else() {
        use Capability as C;
        use Role::*;
        let table: [(Capability, &[Role]); 8] = [
            (C::Observe, &[Head, Client, Operator, Observer]),
            (C::BeANode, &[Head, Worker]),
            (C::Call, &[Head, Worker, Client, Operator, Process]),
            (C::SubmitJobs, &[Client, Operator]),
            (C::ManageJobs, &[Operator]),
            (C::ManageTokens, &[Operator]),
            (C::ManageNodes, &[Operator]),
            (C::Lead, &[Head]),
        ];
        for (capability, roles) in table {
            for role in Role::ALL {
                assert_eq!(role.may(capability), roles.contains(&role), "{role} {capability:?}");
            }
        }
    }

    #[test]
    fn two_roles_are_none() {
        assert_eq!(Role::of(|role| role == Role::Worker), Some(Role::Worker));
        assert_eq!(Role::of(|role| role.is_node()), None);
        assert_eq!(Role::of(|_| false), None);
        assert_eq!("worker".parse(), Ok(Role::Worker));
        assert_eq!("Worker".parse::<Role>(), Err(UnknownRole));
    }
}
