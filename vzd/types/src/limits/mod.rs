//! Limits of a container: the table of beancounters ([`table`]), their numbers ([`amount`]), what a configuration
//! says of them ([`config`]), what a request changes ([`change`]), what the kernel is told ([`kernel`]), and the
//! classic text ([`text`]). Pure: the host's part (which controllers there are, what is held) is vzd's.

pub mod amount;
pub mod change;
pub mod config;
pub mod kernel;
pub mod table;
pub mod text;

pub use amount::{Amount, LimitError, PAGE, Pair};
pub use change::LimitChanges;
pub use config::{CpuConfig, IoConfig, LimitsConfig};
pub use table::{COUNTERS, Class, Counter, Ub, Unit};
