//! Whom processes belong to: real paths of cgroups, the files of a node, and processes that come and go.

mod node;
mod paths;
mod registry;
