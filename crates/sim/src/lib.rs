//! A deterministic network that runs the very same machines: clock, links, churn, adversaries.
//!
//! [`Sim`] drives any number of machines of one type through one queue of happenings ordered by virtual time. Nothing
//! in it depends on the computer it runs on: the same seed and the same orders give the same run, and
//! [`Sim::trace`] proves it with one hash over everything that was sent and delivered.

mod conditions;
mod queue;
mod sim;
mod trace;
mod wire;

pub use conditions::Conditions;
pub use sim::{Churn, Executor, NodeId, Sim, Stats};
pub use trace::Trace;
