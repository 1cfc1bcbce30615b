//! Playing a torrent while it downloads, with Debian's ffmpeg as the player and a libtorrent that gives slowly.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fixture::{Content, DUNLIN};
use dunlin_testkit::dunlin::Dunlin;
use dunlin_testkit::libtorrent::Libtorrent;
use dunlin_testkit::{content, setup};
use serde_json::json;

/// The folder that is streamed: a film whose index is at its end, a song, and what no player wants.
fn film(home: &Path) -> Content {
    let folder = home.join("Film \u{fc}");
    std::fs::create_dir_all(&folder).unwrap();
    content::write_file(&folder.join("a note.txt"), 1 << 20, 61).unwrap();
    content::write_file(&folder.join("zeros.bin"), 40 << 20, 62).unwrap();
    let make = |args: &[&str], name: &str| {
        let status = Command::new(setup::ffmpeg().unwrap())
            .args(["-v", "error", "-f", "lavfi", "-i"])
            .args(args)
            .arg(folder.join(name))
            .status();
        assert!(status.unwrap().success());
    };
    let noise = "testsrc2=duration=20:size=640x480:rate=25,noise=alls=40:allf=t";
    make(
        &[noise, "-c:v", "mpeg4", "-b:v", "8M", "-minrate", "8M"],
        "the film.mp4",
    );
    make(&["sine=duration=5", "-c:a", "flac"], "song.flac");
    Content::new(home, "Film \u{fc}", 256 << 10)
}

/// A daemon, a libtorrent that gives it `rate` bytes a second, and the film.
struct Stage {
    daemon: Dunlin,
    content: Content,
    theirs: Libtorrent,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new(rate: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let content = film(&folder.path().join("seed"));
        let theirs = Libtorrent::start().unwrap();
        let hash = theirs.seed(&content.path, &content.home).unwrap();
        theirs.limit(&hash, rate, 0).unwrap();
        Self {
            daemon: Dunlin::start(DUNLIN, &["--disable", "bitcoin"]).unwrap(),
            content,
            theirs,
            _folder: folder,
        }
    }

    /// `dunlin torrent stream`: the address that it prints.
    fn stream(&self, source: &str, more: &[&str]) -> String {
        let peer = self.theirs.address().to_string();
        let args = [&["torrent", "stream", source, "--peer", &peer], more].concat();
        self.daemon.cli(&args).unwrap().ok().unwrap().trim().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.content.home.join(&self.content.torrent.name).join(name)
    }

    /// What share of the torrent is here.
    fn progress(&self) -> f64 {
        let torrent = self
            .daemon
            .call("torrent.info", json!([self.content.torrent.hash_hex()]))
            .unwrap();
        torrent["done_bytes"].as_f64().unwrap() / torrent["total_bytes"].as_f64().unwrap()
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map_or("", |(_, value)| value.as_str())
    }
}

fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(()).unwrap()).unwrap();
    let headers = response.headers().iter();
    let headers = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    Answer {
        status: response.status().as_u16(),
        headers,
        body: response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap(),
    }
}

/// What ffmpeg makes of a film, frame by frame, as one sum.
fn play(source: &str) -> String {
    let mut ffmpeg = Command::new(setup::ffmpeg().unwrap());
    let output = ffmpeg
        .args(["-v", "error", "-i", source, "-f", "md5", "-"])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn ffmpeg_plays_a_film_while_it_downloads() {
    let stage = Stage::new(6 << 20);
    // By a magnet link: what it consists of is found out first.
    let url = stage.stream(&stage.content.torrent.magnet(&[], None), &["--file", ".mp4"]);
    assert!(url.ends_with("/the%20film.mp4"), "{url}");
    let mut ffprobe = Command::new(setup::ffprobe().unwrap());
    let entries = [
        "-v",
        "error",
        "-show_entries",
        "format=duration,format_name",
        "-of",
        "csv=p=0",
        &url,
    ];
    let output = ffprobe.args(entries).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("mp4") && text.contains("20.0"), "{text}");
    // The index at the end of the film is here, and far from everything else.
    assert!(stage.progress() < 0.6, "{}", stage.progress());
    let film = stage.path("the film.mp4");
    assert_eq!(play(&url), play(film.to_str().unwrap()));
    assert!(
        stage.progress() < 1.0,
        "what nobody plays comes last: {}",
        stage.progress()
    );

    let playlist = stage.stream(&stage.content.torrent.hash_hex(), &[]);
    let answer = ask("GET", &playlist, &[]);
    let text = String::from_utf8(answer.body.clone()).unwrap();
    assert_eq!(answer.header("content-type"), "audio/x-mpegurl; charset=utf-8");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#EXTINF:-1,"))
        .collect();
    assert_eq!(names, ["song.flac", "the film.mp4"]);
    assert!(text.lines().any(|line| line == url), "{text}");
    let song = text.lines().find(|line| line.ends_with("/song.flac")).unwrap();
    assert_eq!(play(song), play(stage.path("song.flac").to_str().unwrap()));
}

#[test]
fn parallel_ranges_seeks_and_hang_ups() {
    let stage = Stage::new(3 << 20);
    let url = stage.stream(&stage.content.path.display().to_string(), &["--file", ".mp4"]);
    let bytes = std::fs::read(stage.path("the film.mp4")).unwrap();
    let len = bytes.len();
    assert!(len > 10 << 20, "{len}");

    // A seek to the end does not wait for what is before it.
    let start = Instant::now();
    let answer = ask("GET", &url, &[("Range", "bytes=-70000")]);
    assert_eq!(answer.status, 206);
    assert!(answer.body == bytes[len - 70_000..]);
    assert_eq!(
        answer.header("content-range"),
        format!("bytes {}-{}/{len}", len - 70_000, len - 1)
    );
    assert_eq!(answer.header("content-type"), "video/mp4");
    assert_eq!(
        answer.header("content-disposition"),
        "inline; filename*=UTF-8''the%20film.mp4"
    );
    assert!(
        stage.progress() < 0.7,
        "{} after {:?}",
        stage.progress(),
        start.elapsed()
    );

    // Players that hang up early, and others beside them that read on.
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (url, bytes) = (&url, &bytes);
            scope.spawn(move || {
                let first = n * (len / 7);
                let range = format!("bytes={first}-{}", first + 400_000);
                let answer = ask("GET", url, &[("Range", &range)]);
                assert!(
                    answer.status == 206 && answer.body == bytes[first..=first + 400_000],
                    "{range}"
                );
            });
            scope.spawn(move || {
                let mut response = ureq::get(url).call().unwrap();
                let mut some = vec![0; 50_000];
                response.body_mut().as_reader().read_exact(&mut some).unwrap();
                assert!(some == bytes[..50_000]);
            });
        }
    });

    let head = ask("HEAD", &url, &[]);
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, len.to_string().as_str())
    );
    assert!(head.body.is_empty());
    let etag = head.header("etag").to_owned();
    assert_eq!(
        ask("GET", &url, &[("Range", "bytes=5-9"), ("If-Range", &etag)]).body,
        bytes[5..10]
    );
    let beyond = ask("GET", &url, &[("Range", &format!("bytes={len}-"))]);
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, format!("bytes */{len}").as_str())
    );

    // The address itself is the key, and other names for this host are refused.
    let key = url.split('/').nth(4).unwrap();
    assert_eq!(ask("GET", &url.replace(key, &"0".repeat(key.len())), &[]).status, 404);
    assert_eq!(ask("GET", &url, &[("Host", "evil.example")]).status, 403);
    let page = url.split("/stream/").next().unwrap();
    assert_eq!(ask("GET", &format!("{page}/api/status?token={key}"), &[]).status, 401);

    // All of it, from the first byte to the last.
    let start = Instant::now();
    assert!(ask("GET", &url, &[]).body == bytes);
    assert!(start.elapsed() < Duration::from_secs(60));
}
