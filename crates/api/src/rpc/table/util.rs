//! The methods that help, defined once.

use crate::rpc::index;
use crate::rpc::method::{Arg, Kind, Method, Run};

pub(super) static METHODS: &[Method] = &[Method {
    name: "getindexinfo",
    group: "util",
    about: "How far the indexes have come.",
    args: &[Arg::optional("index_name", Kind::Str, "Only this one.")],
    result: "{...}    for each: synced, best_block_height, and trouble when it does not go on",
    run: Run::Blocking(index::getindexinfo),
}];
