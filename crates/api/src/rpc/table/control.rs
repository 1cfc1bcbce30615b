//! The methods about this process, defined once.

use super::waits;
use crate::rpc::control;
use crate::rpc::method::{Arg, Kind, Method, Run};

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "getrpcinfo",
        group: "control",
        about: "The calls under way.",
        args: &[],
        result: "{...}    active_commands with method and duration in microseconds, logpath",
        run: Run::Blocking(control::getrpcinfo),
    },
    Method {
        name: "help",
        group: "control",
        about: "All methods in one line each, or everything about one of them.",
        args: &[Arg::optional("command", Kind::Str, "The method to explain.")],
        result: "\"text\"    (string)",
        run: Run::Blocking(control::help),
    },
    Method {
        name: "stop",
        group: "control",
        about: "Ends the node cleanly.",
        args: &[Arg::hidden("wait", Kind::Num)],
        result: "\"text\"    (string) says that the node is stopping",
        run: waits!(control::stop),
    },
    Method {
        name: "uptime",
        group: "control",
        about: "How long the node has been running.",
        args: &[],
        result: "n    (numeric) seconds",
        run: Run::Blocking(control::uptime),
    },
];
