//! What the head does not know itself and asks the drivers of jobs: their actors.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mobula_control::{ActorQuestion, ActorTable};
use mobula_core::cluster::JobId;
use mobula_core::limits;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::bells::Bells;

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
                    all.left_out += table.left_out + table.actors.len().saturating_sub(room) as u64;
                    table.actors.truncate(room);
                    // What a driver says of itself is of its own job.
                    table.actors.iter_mut().for_each(|actor| actor.job = question.job);
                    all.actors.append(&mut table.actors);
                    all.silent.extend(table.silent.into_iter().map(|node| format!("{node} of {}", question.job)));
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
        ActorTable { actors: (0..actors).map(row).collect(), left_out: 2, silent: vec!["node-2".to_owned()] }
    }

    #[tokio::test]
    async fn who_answers_is_listed_up_to_the_limit_and_who_does_not_is_named() {
        let questions = Questions::default();
        let answers = async {
            let job = JobId(1);
            let question = questions.of(job)[0];
            assert_eq!(question.limit, 3);
            questions.told(JobId(2), question.number, table(1));
            assert_eq!(questions.of(job).len(), 1, "it is a question to another");
            questions.told(job, question.number, table(5));
            // Again, and nobody waits.
            questions.told(job, question.number, table(1));
        };
        let (told, ()) = tokio::join!(questions.ask(vec![JobId(1), JobId(2)], 3, Duration::from_millis(50)), answers);
        assert_eq!((told.actors.len(), told.left_out), (3, 4));
        assert!(told.actors.iter().all(|actor| actor.job == JobId(1)), "whatever the driver said");
        assert_eq!(told.silent, ["node-2 of job-1", "job-2"]);
        assert!(questions.of(JobId(1)).is_empty() && questions.of(JobId(2)).is_empty());
    }
}
