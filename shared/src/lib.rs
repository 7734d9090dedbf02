//! What several services use, and nothing that only one of them needs. A folder uses those below it only.

// What every service begins with.
pub mod process;
// What operators do and see.
pub mod operators;
// What each request passes.
pub mod web;
// What any process needs.
pub mod runtime;
// The words of the contract.
pub mod contract;
