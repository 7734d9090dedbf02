//! What talks HTTP: the server, tokens, documents, lists, problems, pages.

pub mod auth;
pub mod http;
pub mod json;
pub mod pages;
pub mod paging;
pub mod problem;
pub mod query;
