//! What services agree on: messages, and the texts in them.

pub mod customer;
pub mod message;
pub mod schema;
pub mod text;
