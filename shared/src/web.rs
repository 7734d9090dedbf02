//! What talks HTTP: the server, tokens, documents, lists, problems, pages.

// The server, and what each request passes.
pub mod http;
// Who calls.
pub mod auth;
// What is asked for.
pub mod query;
// What is sent.
pub mod json;
// How a list goes on.
pub mod paging;
// The one error that leaves.
pub mod problem;
// What browsers show.
pub mod pages;
