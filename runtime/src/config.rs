//! Settings: typed TOML files with precise complaints, and single values layered from flag, environment and files.

mod file;
mod layers;

pub use file::{ConfigError, FILE_LIMIT_BYTES, Mistake, load_file, nearest, parse};
pub use layers::{Layers, Origin, Places, Setting};
