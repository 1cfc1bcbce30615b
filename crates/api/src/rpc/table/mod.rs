//! Every method, defined once, by the groups of `help`.

mod blockchain;
mod by_hand;
mod control;
mod dunlin;
mod hidden;
mod mempool;
mod mining;
mod network;
mod psbt;
mod raw_transactions;
mod torrent;
mod util;
mod waiting;
mod zmq;

use super::method::Method;

/// All methods.
pub(crate) fn all() -> Vec<&'static Method> {
    let groups = [
        blockchain::METHODS,
        by_hand::METHODS,
        waiting::METHODS,
        control::METHODS,
        dunlin::METHODS,
        hidden::METHODS,
        mempool::METHODS,
        mining::METHODS,
        network::METHODS,
        psbt::METHODS,
        raw_transactions::METHODS,
        torrent::METHODS,
        util::METHODS,
        zmq::METHODS,
    ];
    groups.into_iter().flatten().collect()
}

/// The method of this name.
pub(crate) fn find(name: &str) -> Option<&'static Method> {
    all().into_iter().find(|method| method.name == name)
}

/// How a method runs that waits for the program's machines.
macro_rules! waits {
    ($handler:path) => {
        crate::rpc::method::Run::Async(|call| Box::pin($handler(call)))
    };
}
use waits;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rpc::help;
    use crate::rpc::method::Need;

    #[test]
    fn each_method_is_defined_once_and_explains_itself() {
        let mut names = BTreeSet::new();
        for method in all() {
            assert!(names.insert(method.name), "{} is there twice", method.name);
            let text = help::of(method);
            assert!(text.starts_with(method.name) && text.contains("Result:"), "{text}");
            for arg in method.args.iter().filter(|arg| arg.need != Need::Hidden) {
                assert!(
                    !arg.about.is_empty() && text.contains(arg.name()),
                    "{} of {}",
                    arg.names,
                    method.name
                );
            }
            let needed_after_optional = method
                .args
                .iter()
                .skip_while(|arg| arg.need == Need::Required)
                .any(|arg| arg.need == Need::Required);
            // Core's own exception: a place that once had a meaning stands between two that have one.
            let as_core_has_it = method.name == "prioritisetransaction";
            assert_eq!(needed_after_optional, as_core_has_it, "{}", method.name);
        }
        let list = help::list(&all());
        assert!(
            list.starts_with(
                "== Blockchain ==\ndumptxoutset \"path\" ( \"type\" options )\ngetbestblockhash\ngetblock \"blockhash\" ( verbosity )\n"
            ),
            "{list}"
        );
        assert!(
            list.contains("\n\n== Torrent ==\ntorrent.add \"torrent\" ( \"dir\" [\"peers\",...] paused seed_only )\n")
        );
    }
}
