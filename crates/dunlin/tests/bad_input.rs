//! Bad input of every kind: one clear line, the right exit code, nothing damaged.

#![allow(clippy::unwrap_used)]

use bitcoin::consensus::encode::serialize_hex;
use dunlin_testkit::child::{Child, bound_command};
use dunlin_testkit::coins::Holder;
use dunlin_testkit::content;
use dunlin_testkit::core::{Bitcoind, Options};
use dunlin_testkit::dunlin::{Doors, Dunlin, Output, run};
use dunlin_testkit::liar::{Liar, Lie};
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::metainfo::Torrent;
use dunlin_testkit::tiny_disk::TinyDisk;
use dunlin_testkit::wait_until;
use dunlin_testkit::{Rpc, RpcError, free_address};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const LIMIT: Duration = Duration::from_secs(30);

fn dunlin(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    run(Path::new(DUNLIN), args, LIMIT).unwrap()
}

/// The one line that says what is wrong. Log lines that came before it are not counted: they carry a time.
fn complaint(output: &str) -> String {
    let is_log = |line: &&str| line.len() > 20 && line.as_bytes()[4] == b'-' && line.as_bytes()[10] == b'T';
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.trim().is_empty() && !is_log(line))
        .collect();
    assert_eq!(lines.len(), 1, "one clear line, not:\n{output}");
    assert!(lines[0].len() < 400, "a line to be read: {}", lines[0]);
    assert!(!output.contains("panicked"), "{output}");
    lines[0].to_owned()
}

fn fails(output: &Output, code: i32, says: &[&str]) {
    assert_eq!(output.code, Some(code), "{}\n{}", output.stdout, output.stderr);
    let line = complaint(&output.stderr);
    for word in says {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

#[test]
fn usage_that_makes_no_sense_ends_with_2() {
    fails(&dunlin(["run", "--colour"]), 2, &["--colour"]);
    fails(&dunlin(["fly"]), 2, &["fly"]);
    fails(&dunlin(["run", "--network", "mars"]), 2, &["mars"]);
    fails(&dunlin(["run", "--listen", "nowhere"]), 2, &["nowhere"]);
    fails(&dunlin(["mine", "minus-one"]), 2, &["minus-one"]);
    fails(&dunlin(["torrent", "get"]), 2, &["SOURCE"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("dunlin.toml"), "colour = \"grey\"\n").unwrap();
    fails(
        &dunlin([OsStr::new("run"), OsStr::new("--data-dir"), folder.path().as_os_str()]),
        2,
        &["colour"],
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn commands_without_a_running_peer_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    for command in [
        &["status"][..],
        &["stop"],
        &["chain", "info"],
        &["peer", "list"],
        &["torrent", "list"],
    ] {
        let args: Vec<&str> = command.iter().copied().chain(["--data-dir", &place]).collect();
        fails(&dunlin(args), 1, &["no peer runs"]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_port_in_use_is_named() {
    for door in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let doors = Doors::free();
        let taken = [doors.p2p, doors.rpc, doors.torrent, doors.api][door];
        let holder = TcpListener::bind(taken).unwrap();
        fails(&dunlin(doors.run_args(folder.path())), 1, &[&taken.to_string()]);
        // With the port free again the same folder serves.
        drop(holder);
        let mut child = run_daemon(DUNLIN, &doors, folder.path());
        let rpc = rpc_of(&doors, folder.path());
        wait_ready(&mut child, &rpc);
        rpc.call("stop", json!([])).unwrap();
        assert!(child.wait(LIMIT).unwrap().success());
    }
}

fn rpc_of(doors: &Doors, folder: &Path) -> Rpc {
    Rpc::new(doors.rpc.port(), &folder.join("regtest").join(".cookie"))
}

fn run_daemon(program: &str, doors: &Doors, folder: &Path) -> Child {
    let mut command = bound_command(program);
    command.args(doors.run_args(folder));
    Child::start("dunlin", command, &folder.join("output.txt")).unwrap()
}

fn wait_ready(child: &mut Child, rpc: &Rpc) {
    wait_until("dunlin answers", LIMIT, || {
        child.check_alive().unwrap();
        rpc.call("getblockcount", json!([])).is_ok()
    })
    .unwrap();
}

#[test]
fn a_data_folder_of_another_network_or_of_a_running_peer_is_refused() {
    let mut daemon = Dunlin::start(DUNLIN, &[]).unwrap();
    daemon
        .call("generatetoaddress", json!([5, Holder::new(1).address()]))
        .unwrap();
    let tip = daemon.best_hash().unwrap();

    // Another peer on the folder of one that runs.
    let second = dunlin(Doors::free().run_args(daemon.folder()));
    fails(&second, 1, &["regtest"]);
    daemon.check_alive().unwrap();
    daemon.stop().unwrap();

    // The folder of one network given as that of another.
    let inner = daemon.folder().join("regtest").display().to_string();
    let [listen, rpc, torrent, api] = [(); 4].map(|()| free_address().to_string());
    let doors = [
        "--listen",
        &listen,
        "--rpc-listen",
        &rpc,
        "--torrent-listen",
        &torrent,
        "--api-listen",
        &api,
    ];
    for network in ["mainnet", "signet", "testnet4"] {
        let args = ["run", "--network", network, "--data-dir", &inner]
            .into_iter()
            .chain(doors);
        fails(&dunlin(args), 1, &["regtest"]);
    }
    daemon.restart().unwrap();
    assert_eq!(daemon.best_hash().unwrap(), tip);
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "not a folder").unwrap();
    fails(&dunlin(Doors::free().run_args(&file)), 1, &["a-file"]);
    fails(&dunlin(Doors::free().run_args(&file.join("below"))), 1, &["a-file"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a folder");
    fails(
        &dunlin(Doors::free().run_args(Path::new("/proc/dunlin"))),
        1,
        &["/proc/dunlin"],
    );

    // Without permission: root has every permission, so there the program runs as nobody.
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    let args = Doors::free().run_args(&closed);
    let outcome = if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("dunlin");
        std::fs::copy(DUNLIN, &program).unwrap();
        let switch = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
        let words = switch
            .iter()
            .map(OsStr::new)
            .chain([program.as_os_str()])
            .chain(args.iter().map(OsStr::new));
        run(Path::new("setpriv"), words, LIMIT).unwrap()
    } else {
        dunlin(&args)
    };
    fails(&outcome, 1, &["closed", "ermission"]);
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0);
}

/// Whether a text says in plain words that the disk is full.
fn says_full(text: &str) -> bool {
    text.contains("no space left on the disk") || text.contains("the disk is full")
}

#[test]
fn a_full_disk_ends_a_download_and_it_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("seed");
    content::write_file(&home.join("file.bin"), 24 << 20, 8).unwrap();
    let torrent = Torrent::create(&home.join("file.bin"), 64 << 10, None).unwrap();
    let path = folder.path().join("file.torrent");
    torrent.save(&path).unwrap();
    let seeder = Libtorrent::start().unwrap();
    seeder.seed(&path, &home).unwrap();

    let disk = TinyDisk::mount(8 << 20).unwrap();
    let start = |name: &str| {
        let mut command = disk.command(DUNLIN);
        command.args(["torrent", "get", "--no-dht", "--no-lsd", "--stall-timeout", "20"]);
        command
            .arg("--peer")
            .arg(seeder.address().to_string())
            .arg("--output")
            .arg(disk.inside())
            .arg(&path);
        Child::start("dunlin", command, &folder.path().join(name)).unwrap()
    };
    let mut full = start("full");
    let status = full.wait(LIMIT).unwrap();
    assert_eq!(status.code(), Some(1), "{}", full.log());
    let line = complaint(&full.log());
    assert!(says_full(&line), "{line}");
    disk.resize(40 << 20).unwrap();
    let mut again = start("again");
    assert!(again.wait(LIMIT).unwrap().success(), "{}", again.log());
    let sum = content::sha256_file(&disk.outside("file.bin")).unwrap();
    assert_eq!(sum, content::sha256_file(&home.join("file.bin")).unwrap());
}

#[test]
fn a_full_disk_damages_no_chain() {
    let core = Bitcoind::start(Options::default()).unwrap();
    let miner = Holder::new(1);
    core.generate(120, &miner.address()).unwrap();
    // The size an empty chain needs decides how small the disk may be: found out on a large one, then cut.
    let disk = TinyDisk::mount(256 << 20).unwrap();
    let doors = Doors::free();
    let folder = disk.inside().join("data");
    let logs = tempfile::tempdir().unwrap();
    let rpc = Rpc::new(doors.rpc.port(), &disk.outside("data").join("regtest").join(".cookie"));
    let start = |name: &str| {
        let mut command = disk.command(DUNLIN);
        command
            .args(doors.run_args(&folder))
            .args(["--connect", &core.p2p().to_string()]);
        Child::start("dunlin", command, &logs.path().join(name)).unwrap()
    };
    let mut daemon = start("first");
    wait_ready(&mut daemon, &rpc);
    let height = |rpc: &Rpc| {
        rpc.call("getblockcount", json!([]))
            .ok()
            .and_then(|height| height.as_u64())
    };
    wait_until("dunlin syncs", LIMIT, || height(&rpc) == Some(120)).unwrap();
    disk.resize(used(&disk) + (64 << 10)).unwrap();

    // Large blocks until there is no room: a node that cannot keep its chain ends, and says why.
    fill(&core, &miner);
    let status = daemon.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert!(says_full(&complaint(&daemon.log())), "{}", daemon.log());

    disk.resize(256 << 20).unwrap();
    let mut again = start("again");
    wait_ready(&mut again, &rpc);
    wait_until("it goes on to the tip", Duration::from_secs(60), || {
        again.check_alive().unwrap();
        let best = rpc.call("getbestblockhash", json!([])).unwrap();
        best == json!(core.best_hash().unwrap())
    })
    .unwrap();
    rpc.call("stop", json!([])).unwrap();
    assert!(again.wait(LIMIT).unwrap().success(), "{}", again.log());
}

fn used(disk: &TinyDisk) -> u64 {
    let mut command = disk.command("du");
    let output = command
        .args(["--summarize", "--block-size=1"])
        .arg(disk.inside())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Gives Core twelve blocks of 900 kB each: the coinbase carries the weight.
fn fill(core: &Bitcoind, miner: &Holder) {
    for index in 0..12 {
        let mut weight = vec![0; 900_000];
        content::Bytes64::new(index).fill(&mut weight);
        // OP_RETURN: nobody can spend it and no coin database has to keep it.
        weight[0] = 0x6a;
        let mut plan = core.plan(miner).unwrap();
        plan.reward_to = bitcoin::ScriptBuf::from_bytes(weight);
        let answer = core.call("submitblock", json!([serialize_hex(&plan.mine())])).unwrap();
        assert!(answer.is_null(), "Core says {answer}");
    }
}

#[test]
fn a_broken_torrent_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("content.bin");
    content::write_file(&file, 100_000, 1).unwrap();
    let good = Torrent::create(&file, 16_384, None).unwrap().bytes;
    let negative: &[u8] = b"d4:infod6:lengthi-5e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
    let deep = [b"l".repeat(200_000), b"e".repeat(200_000)].concat();
    let cases: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("garbage", b"\x00\xff this is no torrent"),
        ("truncated", &good[..good.len() / 2]),
        ("noinfo", b"d8:announce9:http://x/e"),
        ("negative", negative),
        ("deep", &deep),
    ];
    for (name, bytes) in cases {
        let path = folder.path().join(format!("{name}.torrent"));
        std::fs::write(&path, bytes).unwrap();
        let output = folder.path().join(format!("out-{name}"));
        let args = [
            OsStr::new("torrent"),
            OsStr::new("get"),
            path.as_os_str(),
            OsStr::new("--output"),
            output.as_os_str(),
        ];
        let outcome = dunlin(args);
        fails(&outcome, 1, &[&format!("{name}.torrent")]);
        let left = std::fs::read_dir(&output).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{name}: nothing was made");
    }
    fails(
        &dunlin(["torrent", "get", "/nowhere/at-all.torrent"]),
        1,
        &["/nowhere/at-all.torrent"],
    );
}

#[test]
fn a_torrent_that_names_files_elsewhere_stays_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("content.bin");
    content::write_file(&file, 100_000, 1).unwrap();
    let above = format!("{}/escaped", folder.path().display());
    for (case, path) in [&["..", "..", "escaped"][..], &["/", "escaped"], &[above.as_str()]]
        .into_iter()
        .enumerate()
    {
        let torrent = Torrent::create_with_path(&file, 16_384, "named", path).unwrap();
        let source = folder.path().join("hostile.torrent");
        torrent.save(&source).unwrap();
        let seeder = Liar::start(torrent, Ipv4Addr::LOCALHOST, Lie::Never).unwrap();
        let output = folder
            .path()
            .join(format!("out{case}"))
            .join("deep")
            .display()
            .to_string();
        let peer = seeder.address().to_string();
        let source = source.display().to_string();
        let args = [
            "torrent", "get", &source, "--output", &output, "--peer", &peer, "--no-dht", "--no-lsd",
        ];
        let outcome = dunlin(args);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let made = content::sha256_tree(Path::new(&output)).unwrap();
        let sums: Vec<&String> = made.values().collect();
        assert_eq!(sums, [&content::sha256_file(&file).unwrap()], "{made:?}");
        assert!(made.keys().all(|name| name.starts_with("named/")), "{made:?}");
        let out = folder.path().join(format!("out{case}"));
        assert_eq!(
            std::fs::read_dir(out).unwrap().count(),
            1,
            "nothing was made above the folder"
        );
        assert!(!Path::new(&above).exists() && !Path::new("/escaped").exists());
    }
}

#[test]
fn a_magnet_link_without_peers_gives_up_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out").display().to_string();
    let link = format!("magnet:?xt=urn:btih:{}", "5a".repeat(20));
    let started = Instant::now();
    let args = [
        "torrent",
        "get",
        &link,
        "--output",
        &output,
        "--no-dht",
        "--no-lsd",
        "--stall-timeout",
        "2",
    ];
    fails(&dunlin(args), 1, &["no peers"]);
    let took = started.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(12)).contains(&took),
        "{took:?}"
    );
    for broken in ["magnet:?dn=nothing", "magnet:?xt=urn:btih:zz"] {
        fails(&dunlin(["torrent", "get", broken, "--output", &output]), 1, &["magnet"]);
    }
}

#[test]
fn garbage_over_rpc_is_answered_and_harms_nobody() {
    let daemon = Dunlin::start(DUNLIN, &[]).unwrap();
    daemon
        .call("generatetoaddress", json!([3, Holder::new(1).address()]))
        .unwrap();
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let truncated = br#"{"method":"getblockcount","params":["#;
    let bodies: [&[u8]; 6] = [b"", b"garbage", b"\xff\xfe\x00", truncated, b"{\"method\": 5}", &deep];
    for body in bodies {
        let (status, answer) = daemon.rpc().post("garbage", body).unwrap();
        assert!((400..=500).contains(&status), "{status}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let code = answer["error"]["code"].as_i64().unwrap();
        assert!(code == -32700 || code == -32600, "{answer}");
    }
    // Larger than any request may be: refused, or hung up on.
    let huge = vec![b' '; 64 << 20];
    if let Ok((status, answer)) = daemon.rpc().post("huge", &huge) {
        assert!((400..500).contains(&status), "{status}: {answer}");
    }
    let code = |outcome: Result<Value, RpcError>| outcome.unwrap_err().code();
    assert_eq!(code(daemon.call("nosuchmethod", json!([]))), Some(-32601));
    assert_eq!(code(daemon.call("getblockhash", json!([1_000_000]))), Some(-8));
    assert_eq!(code(daemon.call("getblockhash", json!(["one"]))), Some(-3));
    assert_eq!(code(daemon.call("getblock", json!(["00".repeat(32)]))), Some(-5));
    assert_eq!(code(daemon.call("sendrawtransaction", json!(["zz"]))), Some(-22));
    assert_eq!(code(daemon.call("submitblock", json!(["00"]))), Some(-22));
    // Without the cookie nobody is served.
    let stranger = tempfile::tempdir().unwrap();
    let wrong = stranger.path().join("cookie");
    std::fs::write(&wrong, "__cookie__:0000").unwrap();
    let (status, _) = Rpc::new(daemon.doors().rpc.port(), &wrong)
        .post("stop", br#"{"method":"stop"}"#)
        .unwrap();
    assert_eq!(status, 401);
    assert_eq!(daemon.height().unwrap(), 3);
}
