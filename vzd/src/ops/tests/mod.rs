//! Operations on a machine in memory ([`crate::hands::fake`]), with a real inventory and real configuration files.
//!
//! | module | story |
//! |---|---|
//! | [`host`] | a host with a vzd that can be killed and started again, and what it looks like |
//! | [`sweep`] | one operation, with everything that can go wrong in it going wrong |
//! | [`every`] | every operation swept |
//! | [`driver`] | asking, waiting, cancelling |
//! | [`lists`] | what is declared of every operation |
//! | [`audit`] | what is on record |

mod audit;
mod driver;
pub mod every;
pub mod host;
mod lists;
mod sweep;
