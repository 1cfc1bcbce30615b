#![allow(clippy::unwrap_used)]

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

const A: LinkId = LinkId(1);
const B: LinkId = LinkId(2);
const C: LinkId = LinkId(3);

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

/// Pieces of four blocks; the last piece has one block and a half.
fn shape(pieces: u32) -> Shape {
    let piece_len = 4 * BLOCK_LEN;
    Shape {
        total: u64::from(pieces - 1) * u64::from(piece_len) + u64::from(BLOCK_LEN) * 3 / 2,
        piece_len,
        short: Arc::default(),
    }
}

fn picker(pieces: u32, have: &[u32]) -> Picker {
    let mut set = Bitfield::new(pieces);
    for &index in have {
        set.set(index);
    }
    Picker::new(shape(pieces), set, false, &mut rng())
}

fn set(pieces: u32, of: &[u32]) -> Bitfield {
    let mut set = Bitfield::new(pieces);
    for &index in of {
        set.set(index);
    }
    set
}

fn pick(picker: &mut Picker, link: LinkId, pieces: &Bitfield, count: usize) -> Vec<Block> {
    let mut out = Vec::new();
    picker.pick(link, pieces, None, count, &mut rng(), &mut out);
    out
}

fn data(block: Block) -> Bytes {
    Bytes::from(vec![block.piece as u8; block.len as usize])
}

#[test]
fn the_last_piece_and_its_last_block_are_short() {
    let shape = shape(10);
    assert_eq!(shape.pieces(), 10);
    assert_eq!(shape.len_of(9), BLOCK_LEN * 3 / 2);
    assert_eq!(shape.len_of(10), 0);
    let mut picker = picker(10, &(0..9).collect::<Vec<_>>());
    let blocks = pick(&mut picker, A, &Bitfield::full(10), 100);
    let lens: Vec<_> = blocks.iter().map(|block| block.len).collect();
    assert_eq!(lens, [BLOCK_LEN, BLOCK_LEN / 2]);
}

#[test]
fn the_rarest_piece_comes_first_once_there_is_something_to_trade() {
    let mut picker = picker(20, &[0, 1, 2, 3]);
    let all_but_nine: Vec<u32> = (0..20).filter(|&index| index != 9).collect();
    picker.peer_joined(&Bitfield::full(20));
    picker.peer_joined(&set(20, &all_but_nine));
    assert_eq!(picker.availability(9), 1);
    assert_eq!(picker.availability(8), 2);
    let blocks = pick(&mut picker, A, &Bitfield::full(20), 4);
    assert!(blocks.iter().all(|block| block.piece == 9), "{blocks:?}");
    // The second rarest: a piece that only one of two departed peers leaves behind.
    picker.peer_left(&set(20, &all_but_nine), false);
    picker.peer_joined(&set(20, &(0..19).collect::<Vec<_>>()));
    let blocks = pick(&mut picker, A, &Bitfield::full(20), 2);
    assert!(blocks.iter().all(|block| block.piece == 19), "{blocks:?}");
}

#[test]
fn first_pieces_differ_from_peer_to_peer() {
    let chosen: BTreeSet<u32> = (0..20)
        .map(|seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut picker = Picker::new(shape(100), Bitfield::new(100), false, &mut rng);
            let mut out = Vec::new();
            picker.pick(A, &Bitfield::full(100), None, 1, &mut rng, &mut out);
            out[0].piece
        })
        .collect();
    assert!(chosen.len() > 10, "{chosen:?}");
}

#[test]
fn sequential_order_is_the_order_of_the_file() {
    let mut picker = Picker::new(shape(6), set(6, &[1]), true, &mut rng());
    let pieces: Vec<u32> = pick(&mut picker, A, &Bitfield::full(6), 12)
        .iter()
        .map(|block| block.piece)
        .collect();
    assert_eq!(pieces, [0, 0, 0, 0, 2, 2, 2, 2, 3, 3, 3, 3]);
}

#[test]
fn a_piece_in_hand_is_finished_before_another_is_begun() {
    let mut picker = picker(20, &[]);
    let first = pick(&mut picker, A, &Bitfield::full(20), 1)[0];
    let rest = pick(&mut picker, B, &Bitfield::full(20), 3);
    assert!(rest.iter().all(|block| block.piece == first.piece));
    assert!(!rest.contains(&first));
    let next = pick(&mut picker, B, &Bitfield::full(20), 1)[0];
    assert_ne!(next.piece, first.piece);
    // A peer without that piece begins its own.
    let poor = set(20, &[(first.piece + 1) % 20]);
    let own = pick(&mut picker, C, &poor, 1)[0];
    assert_eq!(own.piece, (first.piece + 1) % 20);
}

#[test]
fn blocks_make_a_piece_with_their_senders() {
    let mut picker = picker(3, &[0, 1]);
    let full = Bitfield::full(3);
    let a = pick(&mut picker, A, &full, 1)[0];
    let b = pick(&mut picker, B, &full, 1)[0];
    assert!(pick(&mut picker, C, &full, 1).is_empty());
    assert!(matches!(picker.received(B, b, data(b)), Arrival::Stored { .. }));
    assert!(matches!(picker.received(B, b, data(b)), Arrival::Useless), "twice");
    let Arrival::Complete { blocks, from, .. } = picker.received(A, a, data(a)) else {
        panic!("the piece is complete");
    };
    assert_eq!(from, [A, B]);
    assert_eq!(
        blocks.iter().map(Bytes::len).sum::<usize>(),
        shape(3).len_of(2) as usize
    );
    assert!(!picker.is_complete(), "not before it was verified");
    assert!(pick(&mut picker, C, &full, 1).is_empty(), "nor asked for while it is");
    picker.verified(2);
    assert!(picker.is_complete());
}

#[test]
fn a_block_of_wrong_length_or_place_is_not_stored() {
    let mut picker = picker(3, &[0, 1]);
    let block = pick(&mut picker, A, &Bitfield::full(3), 1)[0];
    let short = Bytes::from_static(b"short");
    assert!(matches!(picker.received(A, block, short), Arrival::Useless));
    let odd = Block { begin: 5, ..block };
    assert!(matches!(picker.received(A, odd, data(odd)), Arrival::Useless));
    let beyond = Block { piece: 77, ..block };
    assert!(matches!(picker.received(A, beyond, data(beyond)), Arrival::Useless));
}

#[test]
fn released_blocks_are_asked_of_others() {
    let mut picker = picker(3, &[0, 1]);
    let full = Bitfield::full(3);
    let blocks = pick(&mut picker, A, &full, 10);
    assert_eq!(blocks.len(), 2);
    let before = picker.freed();
    for &block in &blocks {
        picker.release(A, block);
    }
    assert_ne!(picker.freed(), before);
    assert_eq!(pick(&mut picker, B, &full, 10), blocks);
}

#[test]
fn the_end_game_asks_again_and_names_whom_to_cancel() {
    let mut picker = picker(3, &[0]);
    let full = Bitfield::full(3);
    let asked = pick(&mut picker, A, &full, 5);
    let mut again = Vec::new();
    picker.pick_again(B, &full, 10, &mut again);
    assert!(again.is_empty(), "one block was not asked for yet");
    let last = pick(&mut picker, B, &full, 10);
    assert_eq!(last.len(), 1);
    assert!(picker.in_end_game());
    picker.pick_again(B, &full, 10, &mut again);
    assert_eq!(again.len(), asked.len());
    let mut none = Vec::new();
    picker.pick_again(B, &full, 10, &mut none);
    assert!(none.is_empty(), "nobody is asked twice for one block");
    let block = again[0];
    match picker.received(B, block, data(block)) {
        Arrival::Stored { others } | Arrival::Complete { others, .. } => assert_eq!(others, [A]),
        Arrival::Useless => panic!("it was asked for"),
    }
    assert!(matches!(picker.received(A, block, data(block)), Arrival::Useless));
}

#[test]
fn pieces_in_hand_are_bounded_and_idle_ones_make_room() {
    let shape = Shape {
        total: 40 * (64 << 20),
        piece_len: 64 << 20,
        short: Arc::default(),
    };
    let mut picker = Picker::new(shape, Bitfield::new(40), false, &mut rng());
    let full = Bitfield::full(40);
    let blocks_each = (64 << 20) / BLOCK_LEN as usize;
    let got = pick(&mut picker, A, &full, blocks_each * 10);
    assert_eq!(got.len(), blocks_each * IN_HAND_MIN);
    let only_others: Vec<u32> = (0..40)
        .filter(|index| got.iter().all(|block| block.piece != *index))
        .collect();
    assert!(pick(&mut picker, B, &set(40, &only_others), 1).is_empty());
    // One of the four is given up by its only source but for one block that came.
    let given_up = got[0].piece;
    let mine: Vec<Block> = got.iter().copied().filter(|block| block.piece == given_up).collect();
    picker.received(A, mine[0], data(mine[0]));
    for &block in &mine[1..] {
        picker.release(A, block);
    }
    assert_eq!(pick(&mut picker, B, &set(40, &only_others), 1).len(), 1);
    assert!(picker.is_open(given_up));
}

#[test]
fn a_piece_that_failed_is_fetched_from_one_peer_alone() {
    let mut picker = picker(2, &[0]);
    let full = Bitfield::full(2);
    let blocks = pick(&mut picker, A, &full, 10);
    for &block in &blocks {
        picker.received(A, block, data(block));
    }
    picker.rejected(1, true);
    let first = pick(&mut picker, A, &full, 1);
    assert_eq!(first.len(), 1);
    assert!(pick(&mut picker, B, &full, 1).is_empty());
    picker.received(A, first[0], data(first[0]));
    let second = pick(&mut picker, A, &full, 1);
    picker.release(A, second[0]);
    // Its only source gave up: what it sent is dropped and another starts afresh.
    assert_eq!(pick(&mut picker, B, &full, 10).len(), 2);
}

#[test]
fn a_liars_blocks_are_forgotten() {
    let mut picker = picker(2, &[0]);
    let full = Bitfield::full(2);
    let a = pick(&mut picker, A, &full, 1)[0];
    let b = pick(&mut picker, B, &full, 1)[0];
    picker.received(A, a, data(a));
    picker.distrust(A);
    assert_eq!(pick(&mut picker, B, &full, 10), [a]);
    picker.received(B, a, data(a));
    let Arrival::Complete { from, .. } = picker.received(B, b, data(b)) else {
        panic!("complete");
    };
    assert_eq!(from, [B, B]);
}

#[test]
fn choked_peers_are_asked_for_allowed_pieces_only() {
    let mut picker = picker(20, &[]);
    let within = BTreeSet::from([4, 7]);
    let mut out = Vec::new();
    picker.pick(A, &Bitfield::full(20), Some(&within), 100, &mut rng(), &mut out);
    let pieces: BTreeSet<u32> = out.iter().map(|block| block.piece).collect();
    assert_eq!(pieces, within);
    assert_eq!(out.len(), 8);
}
