//! The methods that wait for the tip, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method};
use crate::rpc::wait;

const TIMEOUT: Arg = Arg::default(
    "timeout",
    Kind::Num,
    "0",
    "After how many milliseconds to answer anyway; 0 for never.",
);

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "waitforblock",
        group: "blockchain",
        about: "Waits until a block is the tip.",
        args: &[Arg::required("blockhash", Kind::Hex, "The block's hash."), TIMEOUT],
        result: "{...}    hash, height: the tip then",
        run: waits!(wait::waitforblock),
    },
    Method {
        name: "waitforblockheight",
        group: "blockchain",
        about: "Waits until the tip has at least a height.",
        args: &[Arg::required("height", Kind::Num, "The height."), TIMEOUT],
        result: "{...}    hash, height: the tip then",
        run: waits!(wait::waitforblockheight),
    },
    Method {
        name: "waitfornewblock",
        group: "blockchain",
        about: "Waits until the tip changes.",
        args: &[
            TIMEOUT,
            Arg::optional(
                "current_tip",
                Kind::Hex,
                "The tip that is known; that of now when left out.",
            ),
        ],
        result: "{...}    hash, height: the tip then",
        run: waits!(wait::waitfornewblock),
    },
];
