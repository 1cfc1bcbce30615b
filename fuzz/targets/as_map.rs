//! Maps of autonomous systems: one that is taken answers for every address, and a damaged one is refused or answers, too.
#![no_main]

use std::net::IpAddr;

use dunlin_peer::AsMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<IpAddr>)| {
    let (bytes, addresses) = input;
    if let Ok(map) = AsMap::new(bytes) {
        for ip in addresses {
            assert_ne!(map.system(ip), Some(0));
        }
    }
});
