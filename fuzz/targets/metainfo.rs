//! Torrent files: what parses is consistent in itself, and is read back the same after it was written.
#![no_main]

use dunlin_torrent::Metainfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(metainfo) = Metainfo::parse(data) else {
        return;
    };
    let again = Metainfo::parse(&metainfo.to_bytes()).expect("what we write parses");
    assert!(again == metainfo, "{again:?} is not {metainfo:?}");
    let info = Metainfo::from_info(&metainfo.raw_info, metainfo.info_hash).expect("its own info dictionary");
    assert_eq!(info.files, metainfo.files);

    let pieces = metainfo.piece_count();
    let total: u64 = (0..pieces).map(|piece| u64::from(metainfo.piece_len(piece))).sum();
    assert_eq!(total, metainfo.total_length);
    assert_eq!(metainfo.piece_len(pieces), 0);
    assert_eq!(metainfo.piece_len(u32::MAX), 0);
    for piece in (0..pieces.min(4)).chain(pieces.checked_sub(1)) {
        assert!(metainfo.piece_hash(piece).is_some());
        let blocks = metainfo.block_count(piece);
        for index in (0..blocks.min(4)).chain(blocks.checked_sub(1)) {
            let block = metainfo.block(piece, index).expect("a block of the piece");
            assert!(metainfo.contains(block));
        }
        assert_eq!(metainfo.block(piece, blocks), None);
    }
    let mut offset = 0;
    for file in &metainfo.files {
        assert_eq!(file.offset, offset, "files follow each other");
        offset = file.range().end;
        assert!(metainfo.pieces_of(file).end <= pieces);
        assert!(
            file.path.is_relative()
                && file
                    .path
                    .components()
                    .all(|part| { matches!(part, std::path::Component::Normal(_)) }),
            "{:?} leads out of the folder",
            file.path
        );
        if file.length > 0 {
            assert_eq!(metainfo.files[metainfo.file_at(file.offset)], *file);
        }
    }
    assert_eq!(offset, metainfo.total_length);
});
