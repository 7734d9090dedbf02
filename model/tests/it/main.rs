//! Explores the protocol. MODEL_SECONDS=600 gives the larger exploration ten minutes instead of ten seconds.

mod announcing;
mod exploration;
mod graph;
mod planted;
mod walk;
