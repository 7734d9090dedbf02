//! What several services use, and nothing that only one of them needs. A folder uses those below it only.

pub mod contract;
pub mod operators;
pub mod runtime;
pub mod web;
