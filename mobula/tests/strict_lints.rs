//! Actors and tasks of all shapes, without a warning.
#![deny(missing_docs, private_interfaces, rust_2018_idioms, unreachable_pub, unsafe_code, unused)]

use mobula::actix;

/// Has all shapes of methods, called or not.
pub struct Counter {
    count: i64,
}

#[mobula::actor]
impl Counter {
    /// Starts at `start`.
    pub fn new(start: i64) -> Self {
        Counter { count: start }
    }

    /// Adds.
    pub fn increment(&mut self, mut by: i64) -> i64 {
        by += self.count;
        by
    }

    /// Divides.
    pub fn divide(&self, by: i64) -> Result<i64, String> {
        self.count.checked_div(by).ok_or_else(|| "by zero".to_owned())
    }

    /// Is not the newest.
    #[deprecated]
    pub fn old(&self, _unused: u8) {}

    #[cfg(any())]
    fn absent(&self, missing: Missing) {}

    fn private(&self) {}

    /// Counts.
    pub fn count(&self, _to: u64) -> mobula::ReplyItems<u64> {
        mobula::ReplyItems::produce(|_| async {})
    }

    #[local]
    fn helper<T: Copy>(&self, x: &T) -> T {
        *x
    }

    fn uses_helper(&self) -> u8 {
        self.helper(&1)
    }
}

struct Manual;

impl actix::Actor for Manual {
    type Context = actix::Context<Self>;
}

#[mobula::actor(manual_actor, name = "ui::ByHand")]
impl Manual {
    fn new() -> Self {
        Manual
    }
}

/// Squares.
#[mobula::task]
pub fn square(x: u64) -> u64 {
    x * x
}

/// Moving the argument's type does not change which one is meant.
mod inner {
    #[derive(Clone, mobula::serde::Serialize, mobula::serde::Deserialize)]
    #[serde(crate = "mobula::serde")]
    pub(crate) struct Task;

    #[mobula::task(name = "ui::of_task")]
    pub(crate) fn of_task(_task: self::Task, mut list: Vec<Task>) -> usize {
        list.clear();
        list.len()
    }
}

#[test]
fn generated_code_is_quiet_under_strict_lints() {
    #[mobula::task]
    fn inside() {}

    inside();
    inside::task();
    let _ = (Counter::actor(5), Manual::actor(), square::task(square(2)), inner::of_task::task(inner::Task, vec![]));
}
