//! Magnet links: what parses is the same link after it was written.
#![no_main]

use dunlin_torrent::Magnet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(magnet) = text.parse::<Magnet>() {
        let written = magnet.to_string();
        assert_eq!(written.parse(), Ok(magnet), "{written}");
    }
});
