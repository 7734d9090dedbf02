//! What operators do and see: pausing, the record of who did what, tables, the management port.

pub mod audit;
pub mod command;
pub mod management;
pub mod pause;
pub mod table;
