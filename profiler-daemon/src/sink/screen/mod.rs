//! The live screen: what threads do right now, for `attach` on a terminal and for `top`.
//!
//! Pure: snapshots and keys go in, the cells of a screen come out. Nothing here knows where snapshots come
//! from, what time it is or what a terminal is.
//!
//! * [`part`]: what time is shown as, with a letter and a colour each.
//! * [`model`]: snapshots to rows, and what has been of late; [`row`] is one of them.
//! * [`state`]: keys to what is shown and how.
//! * [`view`]: all of it to the cells of a screen.
//! * [`film`]: what a recording shows at any moment; [`travel`] moves in it.
//! * [`lines`]: the same figures as lines, where there is no screen.

pub mod film;
pub mod lines;
pub mod model;
pub mod part;
pub mod row;
pub mod state;
pub mod travel;
pub mod view;

pub use film::Film;
pub use model::{About, Model};
pub use part::{Palette, Part};
pub use row::{Level, Row, RowKey};
pub use state::{Key, Screen, Sort, Step};
pub use travel::Travel;
pub use view::{draw, draw_recorded};
