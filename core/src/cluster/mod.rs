//! The words that the head, nodes, drivers, the command line and a dashboard share. Plain data: who decides is the crate `mobula-head`.
//!
//! A node is told what is to run ([`Assignment`]) and says what runs ([`Running`]); a driver sees its job ([`JobView`]). Neither is told what to
//! do step by step, so whoever was away needs no more than the newest state.
mod actor;
mod amount;
mod bad_flag;
mod ids;
mod job;
mod labels;
mod node;
mod placing;
mod platform;
mod refused;
mod resources;
mod visible;

pub use actor::ActorRow;
pub use amount::{Amount, ToAmount};
pub use bad_flag::BadFlag;
pub use ids::{Executable, ExecutableHash, GroupId, HeadTime, JobId, LeaseId, Revision, UnixTime, WorkerId};
pub use job::{
    DetachedRow, DriverStatus, JobKind, JobPhase, JobRow, JobView, JobWorker, NewJob, WorkerPhase, WorkerPolicy,
    WorkerRow,
};
pub use labels::{LabelRule, LabelSelector, Labels};
pub use node::{
    Assignment, Beat, BeatAnswer, DeathProof, DriverSpec, IsolatedWorker, Launch, NodePhase, NodeRow, Registered,
    Registration, Running, RunningWorker, Usage, WorkerSpec,
};
pub use placing::{
    GpuShare, GroupPhase, GroupStrategy, Infeasible, LeaseRow, NewGroup, Place, PlaceStrategy, Placed,
    PlacementGroupRow, Placing, Shortfall, Summary, WhyNot,
};
pub use platform::{Libc, Platform};
pub use refused::Refused;
pub use resources::{Lack, Resources};
pub use visible::{VISIBLE_DEVICES, visible_devices};
