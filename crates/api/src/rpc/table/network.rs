//! The methods about peers, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method};
use crate::rpc::{known_nodes, net};

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "getaddednodeinfo",
        group: "network",
        about: "The nodes that were added with addnode, and whether each is connected.",
        args: &[Arg::optional("node", Kind::Str, "Only this one.")],
        result: "[{...},...]    addednode, connected, addresses",
        run: waits!(known_nodes::getaddednodeinfo),
    },
    Method {
        name: "getaddrmaninfo",
        group: "network",
        about: "How many addresses of other nodes are known, by network: new ones, and those that answered.",
        args: &[],
        result: "{...}    for each network and all_networks: new, tried, total",
        run: waits!(known_nodes::getaddrmaninfo),
    },
    Method {
        name: "getnodeaddresses",
        group: "network",
        about: "Some known addresses of other nodes.",
        args: &[
            Arg::default("count", Kind::Num, "1", "How many at most; 0 for all."),
            Arg::optional("network", Kind::Str, "Only those of ipv4, ipv6, onion, i2p or cjdns."),
        ],
        result: "[{...},...]    time, services, address, port, network",
        run: waits!(known_nodes::getnodeaddresses),
    },
    Method {
        name: "ping",
        group: "network",
        about: "Pings every peer; getpeerinfo tells how long each took.",
        args: &[],
        result: "null",
        run: waits!(known_nodes::ping),
    },
    Method {
        name: "addnode",
        group: "network",
        about: "Adds a peer to keep a connection to, takes it off that list, or tries it once.",
        args: &[
            Arg::required(
                "node",
                Kind::Str,
                "Address or name, with a port where it is not the network's own.",
            ),
            Arg::required("command", Kind::Str, "\"add\", \"remove\" or \"onetry\"."),
            Arg::default(
                "v2transport",
                Kind::Bool,
                "false",
                "Encrypt by BIP 324; not offered yet.",
            ),
        ],
        result: "null",
        run: waits!(net::addnode),
    },
    Method {
        name: "clearbanned",
        group: "network",
        about: "Lifts every ban.",
        args: &[],
        result: "null",
        run: waits!(net::clearbanned),
    },
    Method {
        name: "disconnectnode",
        group: "network",
        about: "Closes a connection, named either by address or by id.",
        args: &[
            Arg::optional(
                "address",
                Kind::Str,
                "The peer's address and port; empty when the id is given.",
            ),
            Arg::optional("nodeid", Kind::Num, "The peer's id in getpeerinfo."),
        ],
        result: "null",
        run: waits!(net::disconnectnode),
    },
    Method {
        name: "getconnectioncount",
        group: "network",
        about: "How many Bitcoin peers are connected.",
        args: &[],
        result: "n    (numeric)",
        run: waits!(net::getconnectioncount),
    },
    Method {
        name: "getnettotals",
        group: "network",
        about: "Bytes received and sent over all Bitcoin connections since the start.",
        args: &[],
        result: "{...}    totalbytesrecv, totalbytessent, timemillis, uploadtarget",
        run: waits!(net::getnettotals),
    },
    Method {
        name: "getnetworkinfo",
        group: "network",
        about: "What we are to the network: versions, services, connections, fees for relay. `version` is the version of \
                Core whose interface this is; `subversion` names our own.",
        args: &[],
        result: "{...}    version, subversion, protocolversion, localservices, localservicesnames, localrelay, \
                 timeoffset, networkactive, connections, connections_in, connections_out, networks, relayfee, \
                 incrementalfee, localaddresses, warnings",
        run: waits!(net::getnetworkinfo),
    },
    Method {
        name: "getpeerinfo",
        group: "network",
        about: "Every Bitcoin connection.",
        args: &[],
        result: "[{...},...]    id, addr, services, bytessent, bytesrecv, conntime, pingtime, version, subver, inbound, \
                 synced_headers, synced_blocks and more",
        run: waits!(net::getpeerinfo),
    },
    Method {
        name: "listbanned",
        group: "network",
        about: "The addresses and ranges banned by hand.",
        args: &[],
        result: "[{...},...]    address, ban_created, banned_until, ban_duration, time_remaining",
        run: waits!(net::listbanned),
    },
    Method {
        name: "setban",
        group: "network",
        about: "Bans an address or a range and closes its connections, or lifts such a ban.",
        args: &[
            Arg::required("subnet", Kind::Str, "An address, or a range such as 192.0.2.0/24."),
            Arg::required("command", Kind::Str, "\"add\" or \"remove\"."),
            Arg::default(
                "bantime",
                Kind::Num,
                "0",
                "For how many seconds, or until when; 0 means 24 hours.",
            ),
            Arg::default(
                "absolute",
                Kind::Bool,
                "false",
                "True when bantime is a time in Unix seconds.",
            ),
        ],
        result: "null",
        run: waits!(net::setban),
    },
];
