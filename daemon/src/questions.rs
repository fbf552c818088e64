//! What the head does not know itself and asks the drivers of jobs: their actors.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mobula_control::{ActorQuestion, ActorTable};
use mobula_core::cluster::JobId;
use mobula_core::{limits, text};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::bells::Bells;

/// A head has so many bits for the questions that it asks.
const TERM_SHIFT: u32 = 32;
/// Those that have not answered are named up to here; more would only fill the answer.
const SILENT_MAX: usize = 1000;

/// The questions that wait for an answer.
#[derive(Default)]
pub(crate) struct Questions {
    waiting: Mutex<Waiting>,
    /// The questions to the driver of this job are others now.
    pub(crate) changed: Bells<JobId>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    by_job: HashMap<JobId, BTreeMap<u64, Asked>>,
}

struct Asked {
    limit: usize,
    answer: oneshot::Sender<ActorTable>,
}

impl Questions {
    /// Of the head with this term, whose questions have other numbers than those of every head before.
    pub(crate) fn of_term(term: u64) -> Self {
        let waiting = Waiting { last: term << TERM_SHIFT, ..Waiting::default() };
        Questions { waiting: Mutex::new(waiting), ..Questions::default() }
    }

    /// What the driver of this job is to answer.
    pub(crate) fn of(&self, job: JobId) -> Vec<ActorQuestion> {
        let waiting = self.waiting.lock();
        let of_job = waiting.by_job.get(&job).into_iter().flatten();
        of_job.map(|(number, asked)| ActorQuestion { number: *number, limit: asked.limit }).collect()
    }

    /// The driver of this job has answered. Nothing comes of an answer that nobody waits for.
    pub(crate) fn told(&self, job: JobId, question: u64, table: ActorTable) {
        if let Some(asked) = self.waiting.lock().take(job, question) {
            // Whoever has asked may be gone.
            let _ = asked.answer.send(table);
        }
    }

    /// Asks the drivers of these jobs, all at once, and waits so long for them. Cancel-safe: nobody is asked any more.
    pub(crate) async fn ask(&self, jobs: Vec<JobId>, limit: usize, within: Duration) -> ActorTable {
        let limit = limit.min(limits::LISTED_ACTORS_MAX);
        let asked: Vec<_> = jobs.into_iter().map(|job| self.begin(job, limit)).collect();
        let until = mobula_transport::now() + within;
        let mut all = ActorTable::default();
        for (question, answer) in asked {
            match tokio::time::timeout_at(until.into(), answer).await {
                Ok(Ok(mut table)) => {
                    let room = limit - all.actors.len();
                    let beyond = table.actors.len().saturating_sub(room) as u64;
                    all.left_out = all.left_out.saturating_add(table.left_out).saturating_add(beyond);
                    table.actors.truncate(room);
                    // What a driver says is of its own job, and goes to people's screens.
                    for actor in &mut table.actors {
                        actor.job = question.job;
                        actor.actor_type = text::printable(&actor.actor_type, limits::NAME_BYTES_MAX);
                        actor.name.iter_mut().for_each(|name| *name = text::printable(name, limits::NAME_BYTES_MAX));
                    }
                    all.actors.append(&mut table.actors);
                    for node in table.silent.into_iter().take(SILENT_MAX.saturating_sub(all.silent.len())) {
                        let node = text::printable(&node, limits::PEER_TEXT_BYTES_MAX);
                        all.silent.push(format!("{node} of {}", question.job));
                    }
                }
                _ => all.silent.push(question.job.to_string()),
            }
        }
        all
    }

    fn begin(&self, job: JobId, limit: usize) -> (Question<'_>, oneshot::Receiver<ActorTable>) {
        let (answer, told) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.lock();
            waiting.last += 1;
            let number = waiting.last;
            waiting.by_job.entry(job).or_default().insert(number, Asked { limit, answer });
            number
        };
        self.changed.ring(&job);
        (Question { all: self, job, number }, told)
    }
}

impl Waiting {
    fn take(&mut self, job: JobId, number: u64) -> Option<Asked> {
        let of_job = self.by_job.get_mut(&job)?;
        let asked = of_job.remove(&number);
        if of_job.is_empty() {
            self.by_job.remove(&job);
        }
        asked
    }
}

/// A question, which is forgotten with this.
struct Question<'a> {
    all: &'a Questions,
    job: JobId,
    number: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.all.waiting.lock().take(self.job, self.number);
    }
}

#[cfg(test)]
mod tests {
    use mobula_core::cluster::ActorRow;
    use mobula_core::{ActorAddress, ActorId, NodeId, NodeUid};

    use super::*;

    fn table(actors: u64) -> ActorTable {
        let row = |number| {
            let actor = ActorAddress { node: NodeId::new("node-1", NodeUid(7)), actor: ActorId(number) };
            ActorRow::new(actor, JobId(99), "Counter".to_owned())
        };
        ActorTable { actors: (0..actors).map(row).collect(), left_out: 2, silent: vec!["node\u{1b}[2J-2".to_owned()] }
    }

    #[tokio::test]
    async fn who_answers_is_listed_up_to_the_limit_and_who_does_not_is_named() {
        let questions = Questions::of_term(3);
        let answers = async {
            let job = JobId(1);
            let question = questions.of(job)[0];
            assert_eq!((question.limit, question.number >> TERM_SHIFT), (3, 3));
            questions.told(JobId(2), question.number, table(1));
            assert_eq!(questions.of(job).len(), 1, "it is a question to another");
            questions.told(job, question.number, table(5));
            // Again, and nobody waits.
            questions.told(job, question.number, table(1));
        };
        let (told, ()) = tokio::join!(questions.ask(vec![JobId(1), JobId(2)], 3, Duration::from_millis(50)), answers);
        assert_eq!((told.actors.len(), told.left_out), (3, 4));
        assert!(told.actors.iter().all(|actor| actor.job == JobId(1)), "whatever the driver said");
        assert_eq!(told.silent, ["node\u{fffd}[2J-2 of job-1", "job-2"]);
        assert!(questions.of(JobId(1)).is_empty() && questions.of(JobId(2)).is_empty());
    }
}
