//! What drives the flow: the loop between kernel and core, and the commands that use it.
//!
//! * [`engine`]: waits for records, has the core take them in, answers questions in between.
//! * [`targets`]: what the command line wants to be measured; [`gate`] starts a command for it.
//! * `measuring` measures targets until something ends that, and `reporting` prints what came of it.
//! * [`attach`]: measures targets or the whole host, shows that, and reports. `live` is the live screen, and
//!   `terminal` what it is drawn on, with `keys` that come from it.
//! * [`record`]: keeps what figures are made from; [`trigger`] says when a flight recorder writes, and
//!   [`replay`] reports on a recording, `travel` on a screen; [`diff`] compares two, and [`export`] gives one to other
//!   programs, `exporting` at the end of a measuring. `recorder` sees to a recording under way.
//! * [`service`]: measures for good and serves the figures over [`http`]; [`flight`] keeps the last while.
//! * [`check`]: says what this host allows.
//! * [`config`]: the service's configuration file and the flags that overrule it.
//! * [`self_check`]: holds some threads' figures against the kernel's own books meanwhile.
//! * `shedding`: has threads left out when the rings would overflow.
//! * [`http`]: serves the metrics, the API and the page to whom it may.
//! * `notify`: tells the service manager how the service is; `privileges`: gives up what it needs no more.
//! * `options`, `witness` and `user_stacks`: flags to settings, what the probes saw of waits to what the
//!   core makes of it, addresses to names.

pub mod attach;
pub mod check;
pub mod config;
pub mod diff;
pub mod engine;
pub mod export;
mod exporting;
pub mod flight;
pub mod gate;
pub mod http;
mod keys;
mod live;
mod measuring;
mod notify;
mod options;
mod privileges;
mod progress;
pub mod record;
mod recorder;
pub mod replay;
mod reporting;
pub mod self_check;
pub mod service;
mod shedding;
pub mod targets;
mod terminal;
mod travel;
pub mod trigger;
mod user_stacks;
mod witness;
