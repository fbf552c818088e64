//! Several heads with one etcd, which each test starts. Where there is none, the tests say so and pass.

#[cfg(not(feature = "etcd"))]
#[test]
fn a_program_without_etcd_says_how_one_with_it_is_built() {
    let root = crate::common::Root::new();
    let mut command = crate::common::mobula(&root.path().join("head"));
    let start = ["start", "--block", "--head", "--port", "0", "--store", "etcd://127.0.0.1:2379"];
    let ended = crate::common::Program::start(command.args(start)).end();
    ended.fails(2, &["etcd://127.0.0.1:2379", "-p mobula-cli --features etcd", "protobuf-compiler"]);
}

#[cfg(feature = "etcd")]
mod with_etcd {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Instant;

    use serde_json::Value;

    use crate::common::{Ended, Node, Program, Root, job_program, outside, until};
    use crate::etcd::Etcd;
    use crate::failures::{answered, wait_for_round};

    /// Two heads and two nodes, all of one core.
    struct Heads {
        first: Node,
        second: Node,
        nodes: Vec<Node>,
        etcd: Etcd,
        root: Root,
    }

    impl Heads {
        fn start() -> Option<Heads> {
            let etcd = Etcd::start()?;
            let root = Root::new();
            let first = head(root.path(), "head-1", &etcd.url()).unwrap_or_else(|ended| panic!("{ended:?}"));
            hand_over_the_authority(&first.home, &root.path().join("head-2"));
            let second = head(root.path(), "head-2", &etcd.url()).unwrap_or_else(|ended| panic!("{ended:?}"));
            let mut heads = Heads { first, second, nodes: Vec::new(), etcd, root };
            for name in ["node-1", "node-2"] {
                let token = heads.first.run(&["token", "create"]).ok().trim().to_owned();
                heads.join(name, &token);
            }
            heads.wait_for_nodes(&heads.first, 4);
            Some(heads)
        }

        /// A node that knows of both heads.
        fn join(&mut self, name: &str, token: &str) {
            let address = format!("{},{}", self.second.address, self.first.address);
            let node = Node::start(self.root.path(), name, &["--address", &address, "--num-cpus", "1"], Some(token));
            self.nodes.push(node.unwrap_or_else(|ended| panic!("{ended:?}")));
        }

        fn wait_for_nodes(&self, head: &Node, count: usize) {
            until(&format!("{count} nodes are up"), || {
                let view = view(head)?;
                (view["summary"]["nodes_up"] == count).then_some(())
            });
        }

        /// A job that asks actors on all nodes, over and over, until the file is there. Waits for its first whole round.
        fn begin_rounds(&self, over: &Path) -> Vec<(String, u32)> {
            let program = job_program();
            let submit = ["job", "submit", "--no-wait", program.to_str().expect("text"), "--", "rounds"];
            let job = self.first.run(&[&submit[..], &[over.to_str().expect("text")]].concat());
            assert_eq!(job.ok().trim(), "job-1");
            round(&self.first, &["head-1", "head-2", "node-1", "node-2"])
        }
    }

    fn head(root: &Path, name: &str, url: &str) -> Result<Node, Ended> {
        Node::start(root, name, &["--head", "--store", url, "--num-cpus", "1"], None)
    }

    fn hand_over_the_authority(from: &Path, to: &Path) {
        fs::create_dir_all(to.join("identity")).expect("room");
        for directory in [to, &to.join("identity")] {
            fs::set_permissions(directory, Permissions::from_mode(0o700)).expect("ours");
        }
        fs::copy(from.join("identity/authority"), to.join("identity/authority")).expect("it is there");
    }

    fn view(head: &Node) -> Option<Value> {
        let ended = head.run(&["status", "--json"]);
        ended.status.success().then(|| ended.json())
    }

    /// Waits until the last round of job-1 that the head has heard of is about exactly these nodes.
    fn round(head: &Node, nodes: &[&str]) -> Vec<(String, u32)> {
        until(&format!("a round of {nodes:?}"), || {
            let ended = head.run(&["job", "logs", "job-1"]);
            let last = ended.stdout.lines().filter_map(answered).next_back()?;
            last.iter().map(|(node, _)| node.as_str()).eq(nodes.iter().copied()).then_some(last)
        })
    }

    fn wait_for_the_end(head: &Node, over: &Path) {
        fs::write(over, "").expect("writable");
        until("the job has ended well", || {
            let row = head.run(&["job", "status", "job-1", "--json"]).json();
            (row["phase"] == "succeeded").then_some(())
        });
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "how long a change takes is told")]
    fn when_the_leading_head_is_killed_another_leads_and_nothing_is_lost() {
        let Some(mut heads) = Heads::start() else { return };
        let over = heads.root.path().join("over");
        let before = heads.begin_rounds(&over);
        let token = heads.first.run(&["token", "create"]).ok().trim().to_owned();
        // The one that waits says who leads.
        heads.second.run(&["status"]).fails(1, &["does not lead", &heads.first.address.to_string()]);
        let waiting = heads.second.address.to_string();
        let join = ["--address", waiting.as_str(), "--num-cpus", "1"];
        let refused = Node::start(heads.root.path(), "node-3", &join, Some(&token)).map(drop).expect_err("it waits");
        refused.fails(69, &[&waiting, "only the head that leads lets others in"]);
        let killed = Instant::now();
        heads.first.kill();
        until("the second head leads", || view(&heads.second));
        let led = killed.elapsed();
        heads.wait_for_nodes(&heads.second, 3);
        println!("led after {led:?}, all nodes were back after {:?}", killed.elapsed());
        let after = round(&heads.second, &["head-2", "node-1", "node-2"]);
        assert_eq!(after[..], before[1..], "the same processes");
        // What was acknowledged before is there: the job, and a token.
        let job = heads.second.run(&["job", "status", "job-1", "--json"]).json();
        assert_eq!(job["phase"], "running");
        heads.join("node-3", &token);
        let again = heads.second.run(&["token", "create"]).ok().trim().to_owned();
        assert_ne!(again, token);
        // The first comes back, and waits.
        heads.first.start_again(None);
        heads.wait_for_nodes(&heads.second, 5);
        heads.first.run(&["status"]).fails(1, &["does not lead", &heads.second.address.to_string()]);
        let last = round(&heads.second, &["head-1", "head-2", "node-1", "node-2", "node-3"]);
        assert_eq!(last[1..4], before[1..]);
        wait_for_the_end(&heads.second, &over);
    }

    #[test]
    fn a_head_that_was_frozen_while_another_came_to_lead_ends() {
        let Some(mut heads) = Heads::start() else { return };
        let over = heads.root.path().join("over");
        // Its driver was started by hand on the host of the first head.
        let mut driver = Program::start(outside(&heads.first.home).arg("rounds").arg(&over));
        let before = wait_for_round(&driver, &["head-1", "head-2", "node-1", "node-2"]);
        heads.first.freeze();
        until("the second head leads", || view(&heads.second));
        heads.wait_for_nodes(&heads.second, 3);
        heads.first.thaw();
        heads.first.end().fails(70, &["lease"]);
        let after = wait_for_round(&driver, &["head-2", "node-1", "node-2"]);
        assert_eq!(after[..], before[1..], "the same processes");
        let job = heads.second.run(&["job", "status", "job-1", "--json"]).json();
        assert_eq!(job["phase"], "running");
        fs::write(&over, "").expect("writable");
        assert!(driver.end().ok().contains("the rounds are over"));
    }

    #[test]
    fn heads_nodes_and_jobs_go_on_when_etcd_is_killed_and_starts_again() {
        let Some(mut heads) = Heads::start() else { return };
        let over = heads.root.path().join("over");
        let before = heads.begin_rounds(&over);
        heads.etcd.start_again();
        until("the first head leads", || view(&heads.first));
        heads.first.run(&["token", "create"]).ok();
        heads.wait_for_nodes(&heads.first, 4);
        assert_eq!(round(&heads.first, &["head-1", "head-2", "node-1", "node-2"]), before);
        heads.second.run(&["status"]).fails(1, &["does not lead"]);
        wait_for_the_end(&heads.first, &over);
        // One that is stopped is followed without waiting for its lease.
        heads.first.run(&["stop"]).ok();
        until("the second head leads", || view(&heads.second));
    }

    #[test]
    fn a_head_of_another_cluster_is_refused_and_told_what_to_do() {
        let Some(etcd) = Etcd::start() else { return };
        let root = Root::new();
        let first = head(root.path(), "head-1", &etcd.url()).unwrap_or_else(|ended| panic!("{ended:?}"));
        let refused = head(root.path(), "head-2", &etcd.url()).map(drop).expect_err("it has no authority");
        refused.fails(78, &[&first.cluster, "identity/authority", "head-2"]);
        assert!(!root.path().join("head-2/identity/authority").exists(), "none is made that is of no use");
        let other = Node::start(root.path(), "head-2", &["--head", "--num-cpus", "1"], None);
        let mut other = other.unwrap_or_else(|ended| panic!("{ended:?}"));
        other.kill();
        let refused = head(root.path(), "head-2", &etcd.url()).map(drop).expect_err("it has another one");
        refused.fails(78, &[&first.cluster, &other.cluster]);
        assert!(view(&first).is_some());
    }
}
