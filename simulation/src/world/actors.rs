//! A model of what the actors crate does around sessions: mailboxes, turns, handlers that take time, restarts, the end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mobula_core::planted::{self, Bug};
use mobula_core::{ActorId, CallError, Decision, Generation, RequestId, RestartBudget, RestartPolicy, codec, limits};
use mobula_transport::{ReceiveCredit, SessionError};

use super::control::{Control, Told};
use super::ends::{Flow, Message, Reply};
use super::names::Tenure;
use super::watch::Watcher;
use super::{Event, World, no_plan};
use crate::fact::{EndId, Fact, HowEnded, LifeId, Op, Skip, Verdict};
use crate::params::{ActorParams, CallParams, Ending, Kind, MS, Time};
use crate::reach::Branch;

/// How an answer finds its way back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    None,
    Near(Op),
    Far { end: EndId, request: RequestId },
}

/// A message in a mailbox.
#[derive(Debug)]
pub(super) struct Letter {
    /// None: forged.
    pub(super) op: Option<Op>,
    pub(super) plan: Arc<CallParams>,
    pub(super) way: Way,
    pub(super) deadline: Option<Time>,
    /// Credit to be returned when it is begun or refused.
    pub(super) ticket: Option<(EndId, u64)>,
    /// A local tell behind the mailbox's capacity.
    pub(super) in_line: bool,
}

/// A handler that runs.
#[derive(Debug)]
struct Job {
    letter: Letter,
    /// Asks of its own, and how many are without an answer.
    children: Vec<Op>,
    waiting: usize,
    worked: bool,
    /// Has nothing to do any more but to answer too late.
    late: bool,
    /// Runs beside the actor, which takes its next message meanwhile.
    beside: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Running,
    Resting,
    Over,
}

pub(super) struct Actor {
    params: ActorParams,
    mailbox: VecDeque<Letter>,
    state: State,
    generation: u32,
    budget: RestartBudget,
    running: BTreeMap<u32, Job>,
    next_job: u32,
    planned: bool,
    /// The name that it acts under.
    pub(super) tenure: Option<Tenure>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) ends_normally: bool,
    /// Its end was told.
    pub(super) published: bool,
}

impl Actor {
    pub(super) fn new(params: ActorParams, restarts_max: u32) -> Self {
        let policy = RestartPolicy { restarts_max, ..RestartPolicy::default() };
        Actor {
            params,
            mailbox: VecDeque::new(),
            state: State::Running,
            generation: 0,
            budget: RestartBudget::new(policy),
            running: BTreeMap::new(),
            next_job: 0,
            planned: false,
            tenure: None,
            watchers: Vec::new(),
            ends_normally: false,
            published: false,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.mailbox.is_empty() || !self.running.is_empty()
    }

    pub(super) fn unfinished(&self) -> Vec<Op> {
        let running = self.running.values().map(|job| &job.letter);
        self.mailbox.iter().chain(running).filter_map(|letter| letter.op).collect()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.state != State::Over
    }

    fn is_busy(&self) -> bool {
        self.params.serial && self.running.values().any(|job| !job.late && !job.beside)
    }
}

impl World<'_> {
    /// A request of another node, as the inbound side of a link takes it in.
    pub(super) fn request(
        &mut self,
        end: EndId,
        request: Option<RequestId>,
        target: ActorId,
        deadline: Option<Time>,
        payload: &[u8],
    ) -> Result<(), SessionError> {
        let Some(life) = self.ends[end as usize].life else { return Ok(()) };
        let message = codec::decode::<Message>(payload);
        let ours = |op: &Op| self.judge.ledger.calls.get(*op as usize).is_some_and(|call| call.end == Some(end ^ 1));
        let op = message.as_ref().ok().map(|message| message.op).filter(ours);
        if self.judge.ledger.tainted.contains(&end) && message.is_ok() && op.is_some() {
            self.reach(Branch::ForgedSurvived);
        }
        if let Some(request) = request
            && self.ends[end as usize].asked.contains_key(&request.0)
        {
            return Err(SessionError::RequestTwice { request: request.0 });
        }
        if let Some(op) = op {
            self.fact(Fact::Arrived { op, life, end: Some(end), deadline });
            if let Some(request) = request {
                self.ends[end as usize].asked.insert(request.0, op);
            }
        }
        let way = request.map_or(Way::None, |request| Way::Far { end, request });
        if target == ActorId::NODE {
            match (request, op) {
                (request, Some(op)) if self.judge.ledger.call(op).plan.kind == Kind::Control || request.is_none() => {
                    let control = message.map_or(Control::Planned, |message| message.control);
                    self.serve_control(life, end, request, op, control);
                }
                (Some(request), Some(op)) => self.serve_later(life, end, request, op),
                _ => self.respond(way, op, Err(decode_failure())),
            }
            return Ok(());
        }
        let known = self.ends[end as usize].flows.contains_key(&target.0);
        let alive = self.lives[life as usize].actors.get(&target.0).is_some_and(|actor| actor.state != State::Over);
        if !known && !alive {
            self.grant(end, target.0, 1);
            self.reach(Branch::NoSuchActor);
            self.skip(op, Skip::NoSuchActor);
            self.respond(way, op, Err(CallError::NoSuchActor { actor: target }));
            return Ok(());
        }
        let window = self.params.credit_messages;
        let flows = &mut self.ends[end as usize].flows;
        let flow = flows.entry(target.0).or_insert_with(|| Flow { credit: ReceiveCredit::new(window), waiting: 0 });
        flow.credit.on_message()?;
        flow.waiting += 1;
        let ticket = Some((end, target.0));
        let plan = op.map_or_else(no_plan, |op| self.judge.ledger.call(op).plan.clone());
        let letter = Letter { op, plan, way, deadline, ticket, in_line: false };
        if message.is_err() {
            self.refuse(letter, Skip::Stopped, decode_failure());
        } else if alive {
            self.put(life, target.0, letter);
        } else {
            self.refuse(letter, Skip::Stopped, CallError::Stopped);
        }
        Ok(())
    }

    pub(super) fn cancel_arrives(&mut self, end: EndId, request: RequestId) {
        self.reach(Branch::CancelArrived);
        if let Some(op) = self.ends[end as usize].asked.get(&request.0).copied() {
            self.fact(Fact::CancelArrived { op });
            if self.judge.ledger.call(op).is_to_node() {
                if let Some(life) = self.ends[end as usize].life {
                    self.forget_asker(life, op);
                }
                return;
            }
        }
        if self.producers.contains_key(&(end, request.0)) {
            self.reach(Branch::StreamGivenUp);
            return self.stream_ends(end, request.0, CallError::Cancelled { started: true });
        }
        if !planted::is(Bug::CancelIgnored) {
            self.ends[end as usize].cancelled.insert(request.0);
        }
    }

    /// Puts a letter into a mailbox. True if it is within the capacity.
    pub(super) fn put(&mut self, life: LifeId, actor: u64, mut letter: Letter) -> bool {
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return false };
        let inside = one.mailbox.len() < one.params.capacity;
        letter.in_line = !inside && matches!(letter.way, Way::None) && letter.ticket.is_none();
        one.mailbox.push_back(letter);
        self.plan_turn(life, actor);
        inside
    }

    fn plan_turn(&mut self, life: LifeId, actor: u64) {
        let node = self.lives[life as usize].node;
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        if one.state == State::Running && !std::mem::replace(&mut one.planned, true) {
            let at = self.soon(node);
            self.plan(at, Event::Turn(life, actor));
        }
    }

    pub(super) fn is_alive(&self, life: LifeId, actor: u64) -> Option<bool> {
        self.lives[life as usize].actors.get(&actor).map(Actor::is_alive)
    }

    /// One turn: messages until one takes time, or the turn is used up.
    pub(super) fn turn_of(&mut self, life: LifeId, actor: u64) {
        if let Some(one) = self.lives[life as usize].actors.get_mut(&actor) {
            one.planned = false;
        }
        for _ in 0..limits::TURN_MESSAGES_MAX {
            let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
            if one.state != State::Running || one.is_busy() {
                return;
            }
            let Some(letter) = one.mailbox.pop_front() else { return };
            let capacity = one.params.capacity;
            let mut moved_up = None;
            if let Some(letter) = one.mailbox.get_mut(capacity - 1)
                && std::mem::take(&mut letter.in_line)
            {
                moved_up = letter.op;
            }
            if let Some(op) = moved_up {
                self.resolve(op, Verdict::Accepted);
            }
            self.deliver(life, actor, letter);
        }
        self.reach(Branch::TurnUsedUp);
        self.plan_turn(life, actor);
    }

    fn deliver(&mut self, life: LifeId, actor: u64, mut letter: Letter) {
        if self.is_cancelled(&letter) {
            self.reach(Branch::CancelSkips);
            return self.refuse(letter, Skip::Cancelled, CallError::Cancelled { started: false });
        }
        if letter.deadline.is_some_and(|at| at <= self.now) && !planted::is(Bug::ExpiredRun) {
            self.reach(Branch::ExpiredAtStart);
            return self.refuse(letter, Skip::Expired, CallError::DeadlineExceeded { started: false });
        }
        if !self.may_act(life, actor) {
            return self.refuse(letter, Skip::Stopped, CallError::Stopped);
        }
        self.return_credit(letter.ticket.take());
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        let (generation, job) = (one.generation, one.next_job);
        one.next_job += 1;
        if let Some(op) = letter.op {
            self.fact(Fact::Started { op, life, actor, generation });
        }
        let (plan, deadline) = (letter.plan.clone(), letter.deadline);
        if let (Kind::Stream, Way::Far { end, request }, Some(op)) = (plan.kind, letter.way, letter.op) {
            let stream = Job { letter, children: Vec::new(), waiting: 0, worked: false, late: false, beside: true };
            if let Some(one) = self.lives[life as usize].actors.get_mut(&actor) {
                one.running.insert(job, stream);
            }
            return self.stream_begins(end, request, op, (life, actor, job));
        }
        if plan.nested.is_empty() && plan.work == 0 {
            return self.complete(life, actor, letter, job);
        }
        let waiting = plan.nested.len();
        let running = Job { letter, children: Vec::new(), waiting, worked: false, late: false, beside: false };
        if let Some(one) = self.lives[life as usize].actors.get_mut(&actor) {
            one.running.insert(job, running);
        }
        let at = self.now + plan.work;
        self.plan(at, Event::Done(life, actor, job));
        for nested in &plan.nested {
            self.reach(Branch::Nested);
            // What was decided at once has no place among the children.
            let child = self.issue(nested, life, Some((life, actor, job)), deadline);
            if let (Some(child), Some(job)) = (child, self.job(life, actor, job)) {
                job.children.push(child);
            }
            if child.is_none() {
                self.child_answered((life, actor, job));
            }
        }
    }

    fn job(&mut self, life: LifeId, actor: u64, job: u32) -> Option<&mut Job> {
        self.lives[life as usize].actors.get_mut(&actor)?.running.get_mut(&job)
    }

    fn is_cancelled(&mut self, letter: &Letter) -> bool {
        match letter.way {
            Way::None => false,
            Way::Near(op) => !planted::is(Bug::CancelIgnored) && self.judge.ledger.call(op).verdict.is_some(),
            Way::Far { end, request } => self.ends[end as usize].cancelled.remove(&request.0),
        }
    }

    pub(super) fn child_answered(&mut self, (life, actor, job): (LifeId, u64, u32)) {
        if let Some(job) = self.job(life, actor, job) {
            job.waiting -= 1;
        }
        self.complete_if_ready(life, actor, job);
    }

    pub(super) fn work_done(&mut self, life: LifeId, actor: u64, job: u32) {
        if let Some(job) = self.job(life, actor, job) {
            job.worked = true;
        }
        self.complete_if_ready(life, actor, job);
    }

    fn complete_if_ready(&mut self, life: LifeId, actor: u64, job: u32) {
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        if one.running.get(&job).is_none_or(|job| !job.worked || job.waiting > 0) {
            return;
        }
        let Some(running) = one.running.remove(&job) else { return };
        if running.late {
            self.respond(running.letter.way, running.letter.op, Ok(false));
            return;
        }
        self.complete(life, actor, running.letter, job);
        self.plan_turn(life, actor);
    }

    fn complete(&mut self, life: LifeId, actor: u64, letter: Letter, job: u32) {
        if let Some(op) = letter.op {
            self.fact(Fact::Finished { op });
        }
        match letter.plan.ending {
            Ending::Reply => self.respond(letter.way, letter.op, Ok(false)),
            Ending::Error => {
                self.reach(Branch::HandlerError);
                self.respond(letter.way, letter.op, Ok(true));
            }
            Ending::Panic => {
                self.reach(Branch::Panicked);
                let generation = self.generation(life, actor);
                self.respond(letter.way, letter.op, Err(panicked(actor, generation)));
                self.fail(life, actor);
            }
            Ending::Stop => {
                self.respond(letter.way, letter.op, Ok(false));
                if let Some(one) = self.lives[life as usize].actors.get_mut(&actor).filter(|one| one.is_alive()) {
                    one.ends_normally = true;
                }
                self.stop(life, actor);
            }
            Ending::Late => {
                let at = letter.deadline.unwrap_or(0).max(self.now) + 300 * MS;
                let late = Job { letter, children: Vec::new(), waiting: 0, worked: false, late: true, beside: false };
                if let Some(one) = self.lives[life as usize].actors.get_mut(&actor) {
                    one.running.insert(job, late);
                }
                self.plan(at, Event::Done(life, actor, job));
            }
        }
    }

    fn generation(&self, life: LifeId, actor: u64) -> u32 {
        self.lives[life as usize].actors.get(&actor).map_or(0, |actor| actor.generation)
    }

    /// A life of an actor has ended in a panic.
    fn fail(&mut self, life: LifeId, actor: u64) {
        self.lose_running(life, actor);
        if let Some(child) = self.child_of(life, actor) {
            self.rests(life, actor);
            return self.child_ends(life, child, HowEnded::Failed);
        }
        let node = self.node_of(life);
        let (now, jitter) = (self.instant(node), self.random.unit());
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        let mail = one.mailbox.len() as u32;
        let decision = one.budget.on_failure(now, jitter);
        match decision {
            Decision::RestartAfter(rest) => {
                one.state = State::Resting;
                one.generation += 1;
                if planted::is(Bug::RestartLosesMail) {
                    one.mailbox.clear();
                }
                self.fact(Fact::ActorFailed { life, actor, mail });
                let at = self.time(node, now + rest);
                self.plan(at, Event::Reborn(life, actor));
            }
            Decision::GiveUp => {
                self.reach(Branch::GaveUp);
                self.fact(Fact::ActorFailed { life, actor, mail });
                self.finish(life, actor);
            }
        }
    }

    pub(super) fn reborn(&mut self, life: LifeId, actor: u64) {
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        if one.state != State::Resting {
            return;
        }
        one.state = State::Running;
        let mail = one.mailbox.len() as u32;
        if mail > 0 {
            self.reach(Branch::MailKept);
        }
        self.fact(Fact::ActorBack { life, actor, mail });
        self.plan_turn(life, actor);
    }

    /// Ends an actor for good, if it lives.
    pub(super) fn stop(&mut self, life: LifeId, actor: u64) {
        if self.is_alive(life, actor) != Some(true) {
            return;
        }
        if let Some(child) = self.child_of(life, actor).filter(|_| self.is_running(life, actor)) {
            let normal = self.lives[life as usize].actors.get_mut(&actor).is_some_and(|one| one.ends_normally);
            self.interrupt(life, actor);
            return self.child_ends(life, child, if normal { HowEnded::Normal } else { HowEnded::Ordered });
        }
        if self.child_of(life, actor).is_some() {
            // It rests, and its supervisor knows what for.
            return;
        }
        self.lose_running(life, actor);
        self.finish(life, actor);
    }

    fn is_running(&self, life: LifeId, actor: u64) -> bool {
        self.lives[life as usize].actors.get(&actor).is_some_and(|one| one.state == State::Running)
    }

    /// A life of a child is over; whether another follows its supervisor says.
    pub(super) fn interrupt(&mut self, life: LifeId, actor: u64) {
        self.lose_running(life, actor);
        self.rests(life, actor);
    }

    /// The actor waits for its next life, and its mail with it.
    pub(super) fn rests(&mut self, life: LifeId, actor: u64) {
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        if one.state != State::Running {
            return;
        }
        one.state = State::Resting;
        one.ends_normally = false;
        one.generation += 1;
        if planted::is(Bug::RestartLosesMail) {
            one.mailbox.clear();
        }
        let mail = one.mailbox.len() as u32;
        self.fact(Fact::ActorFailed { life, actor, mail });
    }

    /// No life of a child follows.
    pub(super) fn dismiss(&mut self, life: LifeId, actor: u64) {
        if self.is_alive(life, actor) == Some(true) {
            self.lose_running(life, actor);
            self.finish(life, actor);
        }
    }

    /// A handler that runs beside its actor is given up.
    pub(super) fn give_up_job(&mut self, life: LifeId, actor: u64, job: u32, error: CallError) {
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        if let Some(job) = one.running.remove(&job) {
            self.respond(job.letter.way, job.letter.op, Err(error));
        }
    }

    fn finish(&mut self, life: LifeId, actor: u64) {
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        one.state = State::Over;
        let mail = std::mem::take(&mut one.mailbox);
        self.fact(Fact::ActorOver { life, actor });
        for letter in mail {
            self.reach(Branch::Stopped);
            if !planted::is(Bug::StopForgetsMail) {
                self.refuse(letter, Skip::Stopped, CallError::Stopped);
            }
        }
        self.release(life, actor);
    }

    /// Handlers that run end with their actor's life; what they asked for is given up.
    fn lose_running(&mut self, life: LifeId, actor: u64) {
        let Some(one) = self.lives[life as usize].actors.get_mut(&actor) else { return };
        let generation = one.generation;
        let running = std::mem::take(&mut one.running);
        self.producers.retain(|_, producer| (producer.life, producer.actor) != (life, actor));
        for job in running.into_values() {
            for child in job.children {
                self.cancel(child);
            }
            self.respond(job.letter.way, job.letter.op, Err(panicked(actor, generation)));
        }
    }

    fn skip(&mut self, op: Option<Op>, why: Skip) {
        if let Some(op) = op {
            self.fact(Fact::Skipped { op, why });
        }
    }

    fn refuse(&mut self, letter: Letter, why: Skip, error: CallError) {
        self.skip(letter.op, why);
        if letter.in_line
            && let Some(op) = letter.op
        {
            self.resolve(op, Verdict::of(&error));
        }
        self.respond(letter.way, letter.op, Err(error));
        self.return_credit(letter.ticket);
    }

    fn return_credit(&mut self, ticket: Option<(EndId, u64)>) {
        let Some((end, target)) = ticket else { return };
        let Some(flow) = self.ends[end as usize].flows.get_mut(&target) else { return };
        flow.waiting -= 1;
        if let Some(count) = flow.credit.on_taken() {
            self.grant(end, target, count);
        }
    }

    /// Sends an answer on its way: a reply, a reply that is an error of the handler's own, or a failure.
    fn respond(&mut self, way: Way, op: Option<Op>, answer: Result<bool, CallError>) {
        match way {
            Way::None => {}
            Way::Near(op) => {
                // A slot that nobody waits for takes no answer.
                if self.judge.ledger.call(op).verdict.is_none() || planted::is(Bug::AnsweredTwice) {
                    self.resolve(
                        op,
                        match answer {
                            Ok(false) => Verdict::Replied { to: op },
                            Ok(true) => Verdict::HandlerError { to: op },
                            Err(error) => Verdict::of(&error),
                        },
                    );
                }
            }
            Way::Far { end, request } => {
                let reply = answer.map(|error| Reply { op: op.unwrap_or(Op::MAX), error, told: Told::Nothing });
                self.answer(end, request, reply);
            }
        }
    }
}

fn panicked(actor: u64, generation: u32) -> CallError {
    let (message, text) = ("simulation::Message".to_owned(), "planned".to_owned());
    CallError::Panicked { actor: ActorId(actor), message, text, generation: Generation(generation) }
}

fn decode_failure() -> CallError {
    CallError::Decode { reason: "not a message of this world".to_owned(), reply: false }
}
