//! What operators do and see: pausing, the record of who did what, the management port.

pub mod audit;
pub mod command;
pub mod management;
pub mod pause;
