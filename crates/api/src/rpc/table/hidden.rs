//! The methods for tests, which `help` does not list, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method, Run};
use crate::rpc::{known_nodes, mempool, testing};

const ECHOED: &[Arg] = &[
    Arg::optional("arg0", Kind::Any, "Anything."),
    Arg::optional("arg1", Kind::Any, "Anything."),
    Arg::optional("arg2", Kind::Any, "Anything."),
    Arg::optional("arg3", Kind::Any, "Anything."),
    Arg::optional("arg4", Kind::Any, "Anything."),
    Arg::optional("arg5", Kind::Any, "Anything."),
    Arg::optional("arg6", Kind::Any, "Anything."),
    Arg::optional("arg7", Kind::Any, "Anything."),
    Arg::optional("arg8", Kind::Any, "Anything."),
    Arg::optional("arg9", Kind::Any, "Anything."),
];

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "echo",
        group: "hidden",
        about: "Answers its arguments.",
        args: ECHOED,
        result: "[...]    the arguments",
        run: Run::Blocking(testing::echo),
    },
    Method {
        name: "echoipc",
        group: "hidden",
        about: "Answers its argument.",
        args: &[Arg::required("arg", Kind::Str, "Any text.")],
        result: "\"text\"    (string) the argument",
        run: Run::Blocking(testing::echoipc),
    },
    Method {
        name: "echojson",
        group: "hidden",
        about: "Answers its arguments, which bitcoin-cli takes as JSON.",
        args: ECHOED,
        result: "[...]    the arguments",
        run: Run::Blocking(testing::echo),
    },
    Method {
        name: "generate",
        group: "hidden",
        about: "Not there any more: `bitcoin-cli -generate` is.",
        args: &[],
        result: "an error",
        run: Run::Blocking(testing::generate),
    },
    Method {
        name: "getmempoolfeeratediagram",
        group: "hidden",
        about: "What the best chunks of the memory pool come to together, from none of them to all.",
        args: &[],
        result: "[{...},...]    weight and fee, summed up",
        run: Run::Blocking(mempool::getmempoolfeeratediagram),
    },
    Method {
        name: "getrawaddrman",
        group: "hidden",
        about: "All known addresses of other nodes, by their places in the tables.",
        args: &[],
        result: "{...}    new and tried: for each bucket/position the address",
        run: waits!(known_nodes::getrawaddrman),
    },
    Method {
        name: "mockscheduler",
        group: "hidden",
        about: "Lets the clock jump ahead, so that what is to be done later is done; on regtest only.",
        args: &[Arg::required(
            "delta_time",
            Kind::Num,
            "By so many seconds, at most 3600.",
        )],
        result: "null",
        run: Run::Blocking(testing::mockscheduler),
    },
    Method {
        name: "setmocktime",
        group: "hidden",
        about: "Sets the clock of the whole node, which goes on from there; on regtest only.",
        args: &[Arg::required(
            "timestamp",
            Kind::Num,
            "Seconds since 1970; 0 for the time that it is.",
        )],
        result: "null",
        run: Run::Blocking(testing::setmocktime),
    },
    Method {
        name: "syncwithvalidationinterfacequeue",
        group: "hidden",
        about: "Waits until all that happened before was told to everyone.",
        args: &[],
        result: "null",
        run: Run::Blocking(testing::syncwithvalidationinterfacequeue),
    },
];
