//! Sessions from the first packet to the last, told by two machines over a channel with faults.

use proptest::prelude::*;

use super::pair::*;
use super::*;
use crate::config::PathState;
use crate::noise::{INITIATION_LEN, RESPONSE_LEN};

fn duplicates(delivered: &[u64]) -> usize {
    let mut seen = delivered.to_vec();
    seen.sort_unstable();
    seen.dedup();
    delivered.len() - seen.len()
}

#[test]
fn the_first_packet_opens_a_session_within_one_round_trip() {
    let mut pair = Pair::introduced(1, Faults::default());
    assert!(!pair.send(0));
    pair.run_ms(11);
    assert_eq!(pair.state(0), PathState::Established);
    assert!(pair.shared(1).path.load().is_none(), "the responder waits for proof");
    pair.run_ms(5);
    assert_eq!(pair.state(1), PathState::Established);
    assert!(pair.send(0) && pair.send(1));
    pair.run_ms(10);
    assert_eq!([pair.nodes[0].delivered.len(), pair.nodes[1].delivered.len()], [1, 1]);
    assert_eq!([pair.log[0].len(), pair.log[1].len()], [INITIATION_LEN, RESPONSE_LEN]);
    const { assert!(RESPONSE_LEN <= INITIATION_LEN, "an answer never amplifies") };
    assert_eq!(pair.nodes[0].machine.paths(pair.now)[0].cipher, Some("AES-256-GCM"));
}

#[test]
fn both_calling_at_once_end_with_one_session() {
    let mut pair = Pair::introduced(2, Faults::default());
    pair.send(0);
    pair.send(1);
    pair.run_ms(50);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
    assert_eq!(pair.nodes.iter().map(|node| node.machine.sessions.len()).collect::<Vec<_>>(), [1, 1]);
    pair.talk(3);
    assert_eq!([pair.nodes[0].delivered.len(), pair.nodes[1].delivered.len()], [30, 30]);
}

#[test]
fn another_secret_gets_no_answer() {
    let mut pair = Pair::with_secrets(3, Faults::default(), [secrets(&[7]), secrets(&[8])]);
    pair.introduce(0, false);
    pair.introduce(1, false);
    pair.talk(2);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Handshaking; 2]);
    assert!(pair.nodes.iter().all(|node| node.drops.keys().eq(["bad_secret"].iter())), "nothing but refusals");
    assert!(pair.log.iter().all(|datagram| datagram.len() == INITIATION_LEN));
}

#[test]
fn secrets_rotate_without_losing_a_packet() {
    let mut pair = Pair::introduced(4, Faults::default());
    pair.establish();
    for step in [&[7, 9][..], &[9, 7]] {
        for node in 0..2 {
            pair.nodes[node].machine.set_secrets(&secrets(step), pair.now);
            pair.collect(node);
            pair.talk(1);
        }
    }
    pair.talk(140);
    let sent = pair.next_payload;
    pair.run_ms(100);
    let delivered = pair.nodes[0].delivered.len() + pair.nodes[1].delivered.len();
    assert_eq!(delivered as u64, sent, "rekeyed under the new secret meanwhile");
    for node in 0..2 {
        pair.nodes[node].machine.set_secrets(&secrets(&[9]), pair.now);
        pair.collect(node);
    }
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
}

#[test]
fn a_session_under_a_withdrawn_secret_closes() {
    let mut pair = Pair::introduced(5, Faults::default());
    pair.establish();
    pair.nodes[1].machine.set_secrets(&secrets(&[9]), pair.now);
    pair.collect(1);
    assert!(pair.shared(1).path.load().is_none());
    pair.talk(1);
    assert!(pair.nodes[1].delivered.is_empty());
    assert!(pair.nodes[1].drops.contains_key("unknown_session"));
}

#[test]
fn a_long_talk_rekeys_without_losing_a_packet() {
    let mut pair = Pair::introduced(6, Faults { jitter_ms: 20, ..Faults::default() });
    pair.establish();
    let first = pair.shared(0).path.load_full().unwrap().session.local_index;
    pair.talk(400);
    pair.run_ms(100);
    let sent = pair.next_payload as usize;
    assert_eq!(pair.nodes[0].delivered.len() + pair.nodes[1].delivered.len(), sent);
    let path = pair.shared(0).path.load_full().unwrap();
    assert_ne!(path.session.local_index, first);
    assert!(pair.now.saturating_duration_since(path.session.born) < Duration::from_secs(140));
    assert!(pair.nodes.iter().all(|node| node.machine.sessions.len() <= 3), "old sessions end");
}

#[test]
fn many_packets_ask_for_new_keys_before_the_key_is_used_up() {
    let mut pair = Pair::introduced(7, Faults::default());
    pair.establish();
    let session = pair.shared(0).path.load_full().unwrap().session.clone();
    session.reserve(crate::session::REKEY_PACKETS).unwrap();
    pair.talk(3);
    assert_ne!(pair.shared(0).path.load_full().unwrap().session.local_index, session.local_index);
    assert!(session.reserve(1 << 28).is_none(), "a used-up key seals nothing");
}

#[test]
fn a_restarted_peer_is_called_again_within_three_seconds() {
    let mut pair = Pair::introduced(8, Faults::default());
    pair.establish();
    pair.talk(2);
    pair.restart(1);
    // The restart is heard of, as gossip would tell.
    pair.introduce(0, false);
    pair.run_ms(50);
    assert_eq!(pair.state(0), PathState::Established);
    pair.talk(1);
    assert!(pair.nodes[1].delivered.len() >= 9, "{:?}", pair.nodes[1].delivered);
    // This time it is not heard of before the peer calls: the call works, as it is of a newer run.
    pair.restart(1);
    pair.send(1);
    pair.run_ms(50);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
}

#[test]
fn silence_under_traffic_is_noticed_after_two_seconds_and_heals() {
    let mut pair = Pair::introduced(9, Faults::default());
    pair.establish();
    pair.talk(3);
    pair.faults.loss = 100;
    pair.talk(3);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Handshaking; 2]);
    pair.faults.loss = 0;
    pair.talk(3);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
    assert!(pair.nodes[0].machine.paths(pair.now)[0].loss.unwrap() > 0.0);
}

/// The peer is heard on a session that it still sends on, and its questions are answered there; what is sent to it goes
/// by another, which it no longer knows.
#[test]
fn a_peer_that_is_heard_but_does_not_hear_is_called_again() {
    for eager in [false, true] {
        let mut pair = Pair::introduced(19, Faults::default());
        (0..2).for_each(|node| pair.introduce(node, eager));
        pair.establish();
        pair.nodes[0].machine.attempt(pair.peer_id(0), pair.now);
        pair.collect(0);
        pair.run_ms(100);
        let id = pair.peer_id(1);
        let machine = &mut pair.nodes[1].machine;
        let contact = machine.contacts.get_mut(&id).unwrap();
        let lost = contact.current.replace(contact.previous.take().unwrap()).unwrap();
        machine.sessions.remove(&lost.local_index);
        machine.reopen(id);
        pair.collect(1);

        let heard = pair.nodes[0].delivered.len();
        pair.talk(1);
        assert!(pair.nodes[0].delivered.len() > heard && pair.nodes[1].drops["unknown_session"] > 0);
        if eager {
            pair.run(Duration::from_secs(30));
        } else {
            pair.talk(8);
        }
        let delivered = pair.nodes[1].delivered.len();
        pair.talk(1);
        assert_eq!(pair.nodes[1].delivered.len(), delivered + 10, "eager: {eager}");
    }
}

#[test]
fn a_peer_that_moved_is_followed_after_it_answered_a_challenge() {
    let mut pair = Pair::introduced(10, Faults::default());
    pair.establish();
    pair.talk(1);
    pair.places[1] = "198.51.100.9:4242".parse().unwrap();
    pair.send(1);
    pair.run_ms(30);
    assert_eq!(pair.nodes[0].machine.paths(pair.now)[0].endpoint, Some(pair.places[1]));
    assert_eq!(pair.state(0), PathState::Established);
}

#[test]
fn an_address_that_only_repeats_what_it_saw_is_not_followed() {
    let mut pair = Pair::introduced(11, Faults::default());
    pair.establish();
    let session = pair.shared(1).path.load_full().unwrap().session.clone();
    let datagram = session.seal_alone(PacketType::Data, &[]).unwrap();
    let (from, to) = ("203.0.113.66:1".parse().unwrap(), pair.places[0]);
    pair.launch(from, to, datagram);
    pair.run_ms(3000);
    assert_eq!(pair.nodes[0].machine.paths(pair.now)[0].endpoint, Some(address(1)));
}

#[test]
fn a_member_cannot_aim_a_new_session_at_somebody_else() {
    let elsewhere: SocketAddr = "203.0.113.66:1".parse().unwrap();
    // The caller's first use of the session says it came from elsewhere; then the same for the callee's answer.
    for (forger, forged) in [(0, PacketType::Data), (1, PacketType::Response)] {
        let mut pair = Pair::introduced(18, Faults::default());
        pair.send(0);
        for _ in 0..30 {
            for flight in &mut pair.flights {
                if flight.from == address(forger) && Header::read(&flight.datagram).unwrap().kind == forged {
                    flight.from = elsewhere;
                }
            }
            pair.run_ms(1);
        }
        assert_eq!(pair.state(1 - forger), PathState::Established);
        let path = pair.shared(1 - forger).path.load_full().unwrap();
        assert_eq!(path.endpoint.address, address(forger));
    }
}

#[test]
fn a_record_with_another_peers_key_does_not_take_its_calls() {
    let mut pair = Pair::introduced(19, Faults::default());
    let honest = pair.nodes[1].machine.contacts.values().next().unwrap().peer.clone();
    for thief in [PeerId([0; 16]), PeerId([0xff; 16])] {
        let stolen = TunnelPeer { id: thief, ..honest.clone() };
        let desired = |peer| Desired { local: vec![], peers: vec![honest.clone(), peer] };
        let other_key = TunnelPeer { noise_key: [9; 32], ..stolen.clone() };
        pair.nodes[1].machine.configure(desired(stolen), pair.now);
        pair.nodes[1].machine.configure(desired(other_key), pair.now);
    }
    pair.send(0);
    pair.run_ms(50);
    assert_eq!(
        [pair.state(0), pair.nodes[1].machine.contacts[&pair.peer_id(1)].status(pair.now, pair.now).state],
        [PathState::Established, PathState::Established]
    );
}

#[test]
fn a_recorded_first_message_displaces_nothing_and_moves_nothing() {
    let mut pair = Pair::introduced(12, Faults::default());
    pair.establish();
    let recorded = pair.log[0].clone();
    let index = pair.shared(1).path.load_full().unwrap().session.local_index;
    let from = "203.0.113.66:1".parse().unwrap();
    pair.launch(from, address(1), recorded.clone());
    pair.run_ms(20);
    assert_eq!(pair.nodes[1].drops.get("stale"), Some(&1));
    // A restarted node does not know the message, but it names its former run.
    pair.restart(1);
    pair.launch(from, address(1), recorded);
    pair.run_ms(20);
    assert_eq!(pair.nodes[1].drops.get("stale"), Some(&1));
    assert!(!pair.nodes[1].machine.sessions.contains_key(&index));
}

#[test]
fn replays_and_forgeries_are_told_apart() {
    let mut pair = Pair::introduced(13, Faults::default());
    pair.establish();
    pair.send(0);
    let good = pair.log.last().cloned().unwrap();
    pair.run_ms(10);
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[15] = forged[15].wrapping_add(9);
    forged[last] ^= 1;
    let mut flag = good.clone();
    flag[2] ^= 1;
    flag[15] = flag[15].wrapping_add(8);
    for datagram in [good, forged, flag, vec![4; 3]] {
        pair.launch(address(0), address(1), datagram);
    }
    pair.run_ms(20);
    let drops = &pair.nodes[1].drops;
    assert_eq!((drops["replay"], drops["forged"], drops["malformed"]), (1, 2, 1));
}

#[test]
fn an_idle_pair_has_nothing_to_wait_for_but_the_end_of_its_keys() {
    let mut pair = Pair::introduced(14, Faults::default());
    assert_eq!(pair.nodes[0].machine.deadline(), None);
    pair.establish();
    pair.run(Duration::from_secs(30));
    let before = pair.log.len();
    pair.run(Duration::from_secs(120));
    assert_eq!(pair.log.len(), before, "nobody speaks");
    pair.run(Duration::from_secs(60));
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Idle; 2]);
    assert!(pair.nodes.iter().all(|node| node.machine.sessions.is_empty() && node.machine.deadline().is_none()));
}

#[test]
fn an_eager_pair_opens_by_itself_and_notices_a_loss_without_traffic() {
    let mut pair = Pair::new(15, Faults::default());
    pair.introduce(1, false);
    pair.introduce(0, true);
    pair.run_ms(50);
    assert_eq!(pair.state(0), PathState::Established);
    pair.run(Duration::from_secs(300));
    assert_eq!(pair.state(0), PathState::Established);
    assert!(pair.log.len() < 100, "{} datagrams in five idle minutes", pair.log.len());
    pair.faults.loss = 100;
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.state(0), PathState::Handshaking);
    pair.faults.loss = 0;
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.state(0), PathState::Established);
}

#[test]
fn an_idle_eager_pair_does_not_mind_a_lost_question() {
    let mut pair = Pair::new(20, Faults { loss: 20, ..Faults::default() });
    pair.introduce(1, true);
    pair.introduce(0, true);
    pair.run(Duration::from_secs(5));
    for _ in 0..600 {
        pair.run(Duration::from_secs(1));
        assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
    }
}

#[test]
fn a_removed_peer_loses_its_sessions() {
    let mut pair = Pair::introduced(16, Faults::default());
    pair.establish();
    let shared = pair.shared(1);
    pair.nodes[1].machine.configure(Desired::default(), pair.now);
    pair.collect(1);
    assert!(shared.path.load().is_none() && pair.nodes[1].machine.sessions.is_empty());
    pair.send(0);
    pair.run_ms(10);
    assert!(pair.nodes[1].delivered.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_bad_channel_delays_but_neither_doubles_nor_stops(
        seed in any::<u64>(), loss in 0_u64..40, doubling in 0_u64..50, jitter_ms in 0_u64..200,
    ) {
        let mut pair = Pair::introduced(seed >> 1, Faults { loss, doubling, jitter_ms });
        pair.talk(150);
        pair.faults = Faults::default();
        pair.talk(6);
        prop_assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
        let delivered: Vec<u64> = pair.nodes.iter().flat_map(|node| node.delivered.clone()).collect();
        prop_assert_eq!(duplicates(&delivered), 0);
        prop_assert!(delivered.len() as u64 * 100 >= pair.next_payload * (90 - loss), "{} of {}", delivered.len(), pair.next_payload);
        prop_assert!(pair.nodes.iter().all(|node| node.machine.sessions.len() <= 3));
    }

    #[test]
    fn bytes_from_anywhere_never_panic(mut datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let mut pair = Pair::introduced(1, Faults::default());
        pair.establish();
        for (number, datagram) in datagrams.iter_mut().enumerate() {
            // Half of them begin like ours, so that more than the first check is met.
            if number % 2 == 0 && datagram.len() >= 4 {
                datagram[..4].copy_from_slice(&[1 + number as u8 % 7, 1, 1, 0]);
            }
            let flight = Flight { at: pair.now, from: address(0), to: address(1), datagram: datagram.clone() };
            pair.arrive(flight);
        }
        prop_assert_eq!(pair.state(1), PathState::Established);
    }
}
