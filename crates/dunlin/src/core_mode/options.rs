//! Every option of Bitcoin Core 31 that is known here, defined once, with what becomes of it.

/// Which program takes an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// `bitcoind`.
    Daemon,
    /// `bitcoin-cli`.
    Cli,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It does what it does in Core; its line of help.
    Works(&'static str),
    /// Taken in silence: it chooses what is the case here anyway, or nothing that anybody could notice.
    Idle,
    /// Taken with a warning when it is switched on: going on without it harms nobody.
    Ignored,
    /// Refused when it is switched on: going on without it would not be what was asked for.
    Refused,
}

/// One option.
#[derive(Debug)]
pub(super) struct Opt {
    /// Its name, without the dash.
    pub(super) name: &'static str,
    /// Who takes it.
    pub(super) programs: &'static [Program],
    /// Beside mainnet it counts in `bitcoin.conf` only in the network's own section.
    pub(super) in_section: bool,
    /// What becomes of it.
    pub(super) effect: Effect,
}

const DAEMON: &[Program] = &[Program::Daemon];
const CLI: &[Program] = &[Program::Cli];
const BOTH: &[Program] = &[Program::Daemon, Program::Cli];

const fn opt(name: &'static str, programs: &'static [Program], effect: Effect) -> Opt {
    Opt {
        name,
        programs,
        in_section: false,
        effect,
    }
}

const fn works(name: &'static str, help: &'static str) -> Opt {
    opt(name, DAEMON, Effect::Works(help))
}

const fn both(name: &'static str, help: &'static str) -> Opt {
    opt(name, BOTH, Effect::Works(help))
}

const fn cli(name: &'static str, help: &'static str) -> Opt {
    opt(name, CLI, Effect::Works(help))
}

const fn in_section(option: Opt) -> Opt {
    Opt {
        in_section: true,
        ..option
    }
}

/// The option of this name, if the program takes it.
pub(super) fn find(program: Program, name: &str) -> Option<&'static Opt> {
    OPTIONS
        .iter()
        .find(|option| option.name == name && option.programs.contains(&program))
}

/// The options that work for a program, with their help.
pub(super) fn working(program: Program) -> impl Iterator<Item = (&'static str, &'static str)> {
    OPTIONS.iter().filter_map(move |option| match option.effect {
        Effect::Works(help) if option.programs.contains(&program) => Some((option.name, help)),
        _ => None,
    })
}

static OPTIONS: &[Opt] = &[
    both("?", "Show this help"),
    both("h", "Show this help"),
    both("help", "Show this help"),
    both("version", "Show the version"),
    both(
        "conf",
        "Settings file; a relative path is below the data directory [bitcoin.conf]",
    ),
    both("datadir", "Data directory, which must exist [~/.bitcoin]"),
    both("chain", "Network: main, test, testnet4, signet or regtest"),
    both("regtest", "Same as -chain=regtest"),
    both("signet", "Same as -chain=signet"),
    both("testnet", "Same as -chain=test"),
    both("testnet4", "Same as -chain=testnet4"),
    both(
        "rpccookiefile",
        "Where the login of this run is written; a relative path is below the network's directory",
    ),
    both("rpcuser", "User name for RPC"),
    both("rpcpassword", "Password for RPC; without one there is a cookie file"),
    in_section(both("rpcport", "Port of RPC")),
    // Only for bitcoind.
    works("rpcauth", "Another login, USER:SALT$HASH (repeatable)"),
    in_section(works(
        "rpcbind",
        "Address at which RPC is served (repeatable); beyond this machine only with -rpcallowip",
    )),
    works("rpcallowip", "Network from which RPC may be called (repeatable)"),
    works("server", "Serve RPC; always on"),
    works("rest", "Serve REST, without a login, at the address of RPC"),
    works("daemon", "Go on in the background"),
    works("daemonwait", "Go on in the background, and return once RPC answers"),
    works(
        "pid",
        "File for the process id; a relative path is below the network's directory [bitcoind.pid]",
    ),
    works(
        "debug",
        "Log more: a category of the method logging, or all (repeatable)",
    ),
    works("debugexclude", "Log no more of this category (repeatable)"),
    works(
        "rpcwhitelist",
        "USER:METHOD,METHOD...: the user may call these alone (repeatable)",
    ),
    works("rpcwhitelistdefault", "Whether users without a list may call nothing"),
    works(
        "mocktime",
        "Let the clock show this time, in seconds since 1970, and go on from there",
    ),
    works("alertnotify", "Command for warnings; %s is the text"),
    works("startupnotify", "Command to run once RPC answers (repeatable)"),
    works(
        "shutdownnotify",
        "Command to run before all else is stopped (repeatable)",
    ),
    works(
        "debuglogfile",
        "Log file; a relative path is below the network's directory [debug.log]",
    ),
    works(
        "printtoconsole",
        "Log to standard output, too [1, or 0 in the background]",
    ),
    works("blocknotify", "Command for each new tip; %s is its hash"),
    works("assumevalid", "Skip script checks below this block; 0 checks all"),
    works("minimumchainwork", "The least work of the real chain, in hex"),
    both(
        "signetchallenge",
        "Script, in hex, that the blocks of a signet of one's own satisfy",
    ),
    works("test", "bip94: its rules hold; on regtest only"),
    works(
        "testactivationheight",
        "NAME@HEIGHT: bip34, dersig, cltv, csv or segwit holds from there; on regtest only (repeatable)",
    ),
    works("dbcache", "Memory for coins not yet written, in MiB"),
    works("par", "Threads that check scripts; 0 for all cores, -N leaves N free"),
    works(
        "prune",
        "Keep block files near this size in MiB; 1 prunes by hand, 0 keeps all",
    ),
    works(
        "fastprune",
        "Keep blocks in small files, and let pruning begin at height 100; on regtest only",
    ),
    works("loadblock", "Take blocks from this file (repeatable)"),
    works("reindex", "Make index and coins anew from the block files"),
    works("reindex-chainstate", "Make the coins anew"),
    works("txindex", "Keep the index of all transactions"),
    works("txospenderindex", "Keep the index of who spends an output"),
    works("blockfilterindex", "Keep the index of compact filters: basic"),
    works(
        "peerblockfilters",
        "Serve compact filters to peers; needs -blockfilterindex",
    ),
    works("coinstatsindex", "Keep the index of what all coins come to"),
    in_section(works("addnode", "Keep a connection to this peer (repeatable)")),
    in_section(works(
        "connect",
        "Connect only to this peer (repeatable); 0 connects to nobody",
    )),
    in_section(works("bind", "Listen for peers at this address")),
    in_section(works("port", "Listen for peers at this port")),
    works("listen", "Listen for peers [1, but 0 with -connect]"),
    works("dnsseed", "Ask DNS seeds for addresses"),
    works("fixedseeds", "Begin with built-in addresses when nothing else is known"),
    works("blocksonly", "Take no transactions from peers"),
    works("maxconnections", "How many peers at most [125]"),
    works("uacomment", "A comment in the name that peers see (repeatable)"),
    works("v2transport", "Speak the encrypted transport"),
    works(
        "proxy",
        "Dial through this SOCKS5 proxy; =NETWORK for one network only (repeatable)",
    ),
    works("onion", "Dial onion services through this SOCKS5 proxy"),
    works(
        "privatebroadcast",
        "Tell own transactions over short links through the proxies only",
    ),
    works("onlynet", "Choose peers on this network only (repeatable)"),
    works("listenonion", "Have Tor listen for us; needs -torcontrol [1]"),
    works("torcontrol", "Tor's control port"),
    works("torpassword", "The password of Tor's control port"),
    works("i2psam", "The SAM bridge of I2P's router"),
    works("i2pacceptincoming", "Take in links over I2P [1]"),
    works("cjdnsreachable", "Addresses of fc00::/8 are those of CJDNS"),
    works(
        "asmap",
        "Spread links over the systems that this map names; a relative path is below the data directory",
    ),
    // Only for bitcoin-cli.
    cli("rpcconnect", "Where the daemon is [127.0.0.1]"),
    cli("rpcclienttimeout", "Seconds that a call may take; 0 for no limit [900]"),
    cli("rpcwait", "Wait until the daemon answers"),
    cli("rpcwaittimeout", "Wait at most so many seconds; 0 for no limit"),
    cli("named", "Arguments are NAME=VALUE"),
    cli("stdin", "Read further arguments from standard input, one a line"),
    cli("stdinrpcpass", "Read the RPC password from standard input"),
    cli("getinfo", "Show how the daemon is doing"),
    opt("color", CLI, Effect::Idle),
    opt("rpcid", CLI, Effect::Idle),
    opt("rpcwallet", CLI, Effect::Refused),
    opt("stdinwalletpassphrase", CLI, Effect::Refused),
    cli("addrinfo", "Show how many addresses the daemon knows, by network"),
    cli(
        "generate",
        "Find blocks for an address of the daemon's wallet: [N] [TRIES]",
    ),
    cli(
        "netinfo",
        "Show the daemon's peers, for people: [LEVEL] [outonly], or help",
    ),
    opt("ipcconnect", CLI, Effect::Refused),
    opt("signetseednode", BOTH, Effect::Ignored),
    opt("includeconf", BOTH, Effect::Refused),
    // What is so here in any case, or what nobody would notice.
    opt("allowignoredconf", DAEMON, Effect::Idle),
    opt("settings", DAEMON, Effect::Idle),
    opt("discover", DAEMON, Effect::Idle),
    opt("blocksxor", DAEMON, Effect::Idle),
    opt("disablewallet", DAEMON, Effect::Idle),
    opt("help-debug", DAEMON, Effect::Idle),
    opt("logips", DAEMON, Effect::Idle),
    opt("loglevel", DAEMON, Effect::Idle),
    opt("loglevelalways", DAEMON, Effect::Idle),
    opt("logratelimit", DAEMON, Effect::Idle),
    opt("logsourcelocations", DAEMON, Effect::Idle),
    opt("logthreadnames", DAEMON, Effect::Idle),
    opt("logtimemicros", DAEMON, Effect::Idle),
    opt("logtimestamps", DAEMON, Effect::Idle),
    opt("shrinkdebugfile", DAEMON, Effect::Idle),
    opt("printpriority", DAEMON, Effect::Idle),
    opt("rpcdoccheck", DAEMON, Effect::Idle),
    opt("rpcthreads", DAEMON, Effect::Idle),
    opt("rpcworkqueue", DAEMON, Effect::Idle),
    opt("rpcservertimeout", DAEMON, Effect::Idle),
    opt("checkaddrman", DAEMON, Effect::Idle),
    opt("checkblockindex", DAEMON, Effect::Idle),
    opt("checkmempool", DAEMON, Effect::Idle),
    opt("checkpoints", DAEMON, Effect::Idle),
    opt("dbbatchsize", DAEMON, Effect::Idle),
    opt("dbcrashratio", DAEMON, Effect::Idle),
    opt("prevoutfetchthreads", DAEMON, Effect::Idle),
    opt("maxsigcachesize", DAEMON, Effect::Idle),
    opt("upnp", DAEMON, Effect::Idle),
    // Things that Core does besides, and policy of its own pool.
    opt("acceptnonstdtxn", DAEMON, Effect::Ignored),
    opt("addresstype", DAEMON, Effect::Ignored),
    opt("avoidpartialspends", DAEMON, Effect::Ignored),
    opt("bantime", DAEMON, Effect::Ignored),
    opt("blockmaxweight", DAEMON, Effect::Ignored),
    opt("blockmintxfee", DAEMON, Effect::Ignored),
    opt("blockreconstructionextratxn", DAEMON, Effect::Ignored),
    opt("blockreservedweight", DAEMON, Effect::Ignored),
    opt("blockversion", DAEMON, Effect::Ignored),
    opt("bytespersigop", DAEMON, Effect::Ignored),
    opt("changetype", DAEMON, Effect::Ignored),
    opt("checkblocks", DAEMON, Effect::Ignored),
    opt("checklevel", DAEMON, Effect::Ignored),
    opt("consolidatefeerate", DAEMON, Effect::Ignored),
    opt("datacarrier", DAEMON, Effect::Ignored),
    opt("datacarriersize", DAEMON, Effect::Ignored),
    opt("deprecatedrpc", DAEMON, Effect::Ignored),
    opt("discardfee", DAEMON, Effect::Ignored),
    opt("dns", DAEMON, Effect::Idle),
    opt("dustrelayfee", DAEMON, Effect::Ignored),
    opt("externalip", DAEMON, Effect::Ignored),
    opt("fallbackfee", DAEMON, Effect::Ignored),
    opt("forcednsseed", DAEMON, Effect::Ignored),
    opt("incrementalrelayfee", DAEMON, Effect::Ignored),
    opt("keypool", DAEMON, Effect::Ignored),
    opt("limitancestorcount", DAEMON, Effect::Ignored),
    opt("limitancestorsize", DAEMON, Effect::Ignored),
    opt("limitclustercount", DAEMON, Effect::Ignored),
    opt("limitclustersize", DAEMON, Effect::Ignored),
    opt("limitdescendantcount", DAEMON, Effect::Ignored),
    opt("limitdescendantsize", DAEMON, Effect::Ignored),
    opt("maxapsfee", DAEMON, Effect::Ignored),
    opt("maxmempool", DAEMON, Effect::Ignored),
    opt("maxreceivebuffer", DAEMON, Effect::Ignored),
    opt("maxsendbuffer", DAEMON, Effect::Ignored),
    opt("maxtxfee", DAEMON, Effect::Ignored),
    opt("mempoolexpiry", DAEMON, Effect::Ignored),
    opt("minrelaytxfee", DAEMON, Effect::Ignored),
    opt("mintxfee", DAEMON, Effect::Ignored),
    opt("natpmp", DAEMON, Effect::Ignored),
    opt("paytxfee", DAEMON, Effect::Ignored),
    opt("peertimeout", DAEMON, Effect::Ignored),
    opt("permitbaremultisig", DAEMON, Effect::Ignored),
    works("persistmempool", "Keep the memory pool across restarts; always on"),
    opt("persistmempoolv1", DAEMON, Effect::Ignored),
    opt("proxyrandomize", DAEMON, Effect::Idle),
    opt("seednode", DAEMON, Effect::Ignored),
    opt("signer", DAEMON, Effect::Ignored),
    opt("spendzeroconfchange", DAEMON, Effect::Ignored),
    opt("timeout", DAEMON, Effect::Ignored),
    opt("txconfirmtarget", DAEMON, Effect::Ignored),
    opt("unsafesqlitesync", DAEMON, Effect::Ignored),
    in_section(opt("wallet", DAEMON, Effect::Ignored)),
    opt("walletbroadcast", DAEMON, Effect::Ignored),
    opt("walletcrosschain", DAEMON, Effect::Ignored),
    opt("walletdir", DAEMON, Effect::Ignored),
    opt("walletnotify", DAEMON, Effect::Ignored),
    opt("walletrbf", DAEMON, Effect::Ignored),
    opt("walletrejectlongchains", DAEMON, Effect::Ignored),
    in_section(opt("whitebind", DAEMON, Effect::Refused)),
    opt("whitelist", DAEMON, Effect::Ignored),
    opt("whitelistforcerelay", DAEMON, Effect::Ignored),
    opt("whitelistrelay", DAEMON, Effect::Ignored),
    // What somebody relies on when naming it.
    opt("blocksdir", DAEMON, Effect::Refused),
    opt("capturemessages", DAEMON, Effect::Refused),
    opt("ipcbind", DAEMON, Effect::Refused),
    opt("maxtipage", DAEMON, Effect::Refused),
    opt("maxuploadtarget", DAEMON, Effect::Refused),
    opt("peerbloomfilters", DAEMON, Effect::Refused),
    opt("rpccookieperms", DAEMON, Effect::Refused),
    opt("stopafterblockimport", DAEMON, Effect::Refused),
    opt("stopatheight", DAEMON, Effect::Refused),
    opt("vbparams", DAEMON, Effect::Refused),
    works(
        "zmqpubhashblock",
        "Publish hashes of blocks at this address over ZeroMQ (repeatable)",
    ),
    works(
        "zmqpubhashblockhwm",
        "How many messages may wait for each who subscribes to that [1000]",
    ),
    works(
        "zmqpubhashtx",
        "Publish ids of transactions at this address over ZeroMQ (repeatable)",
    ),
    works(
        "zmqpubhashtxhwm",
        "How many messages may wait for each who subscribes to that [1000]",
    ),
    works(
        "zmqpubrawblock",
        "Publish blocks at this address over ZeroMQ (repeatable)",
    ),
    works(
        "zmqpubrawblockhwm",
        "How many messages may wait for each who subscribes to that [1000]",
    ),
    works(
        "zmqpubrawtx",
        "Publish transactions at this address over ZeroMQ (repeatable)",
    ),
    works(
        "zmqpubrawtxhwm",
        "How many messages may wait for each who subscribes to that [1000]",
    ),
    works(
        "zmqpubsequence",
        "Publish the changes of chain and memory pool at this address over ZeroMQ (repeatable)",
    ),
    works(
        "zmqpubsequencehwm",
        "How many messages may wait for each who subscribes to that [1000]",
    ),
    opt(
        "networkactive",
        DAEMON,
        Effect::Works("Take part in the network; always on"),
    ),
];
