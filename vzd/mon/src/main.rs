//! Placeholder.
mod inside_net;
mod storage;

fn main() {}
