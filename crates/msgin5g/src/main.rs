//! The msgin5g program.
fn main() {}
