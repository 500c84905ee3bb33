//! Placeholder.
mod edit;
mod inside_net;
mod storage;

fn main() {}
