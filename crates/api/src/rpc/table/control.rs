//! The methods about this process, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method, Run};
use crate::rpc::{control, logging, testing};

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "getmemoryinfo",
        group: "control",
        about: "How much memory is locked.",
        args: &[Arg::default(
            "mode",
            Kind::Str,
            "stats",
            "stats; mallocinfo tells of an allocator that is not used here.",
        )],
        result: "{...}    locked: used, free, total, locked, chunks_used, chunks_free",
        run: Run::Blocking(testing::getmemoryinfo),
    },
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
        name: "logging",
        group: "control",
        about: "Tells, and chooses, which parts of the node log more.",
        args: &[
            Arg::optional(
                "include",
                Kind::List,
                "Categories that are to log more; all for every one.",
            ),
            Arg::optional("exclude", Kind::List, "Categories that are not."),
        ],
        result: "{...}    for each category whether it does",
        run: Run::Blocking(logging::logging),
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
