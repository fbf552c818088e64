//! Tests of the head's decisions: by case, and against a naive model.
mod cases;
mod harness;
mod isolated;
mod keepers;
mod large;
mod model;
mod platforms;
mod printing;
