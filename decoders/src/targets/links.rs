//! What a link carries before and beside gossip: admission, greetings, reasons of its end, questions about identities.

use std::sync::LazyLock;

use meshwork_gossip::limits::MOST_REFERRED;
use meshwork_identity::admission::{Acceptor, Channel, Dialler, Refused};
use meshwork_identity::{Identity, Secret, Secrets};
use meshwork_router::control::decoders::{closed, greeting, some_greeting, some_reasons};
use meshwork_router::control::{MOST_REFERRED_ENDPOINTS, Tag};
use meshwork_router::node::twin_message_again;
use meshwork_wire::frame;

use crate::input::{Input, of_kind};

const TAG: Tag = [9; 32];

static IDENTITIES: LazyLock<[Identity; 2]> = LazyLock::new(|| [1, 2].map(|seed| Identity::from_seed([seed; 32])));

fn secrets() -> Secrets {
    Secrets::new(vec![Secret::generate([7; 32]), Secret::generate([8; 32])]).expect("two secrets")
}

/// The connection as the first identity sees it, and as the second one does.
fn channels() -> [Channel; 2] {
    let [one, other] = [0, 1].map(|number: usize| IDENTITIES[number].public_key());
    [Channel { exporter: TAG, ours: one, theirs: other }, Channel { exporter: TAG, ours: other, theirs: one }]
}

fn dialler() -> (Dialler, Vec<u8>) {
    Dialler::new(&secrets(), &channels()[0]).expect("two identities")
}

fn acceptor() -> Acceptor {
    Acceptor::new(&secrets(), &channels()[1]).expect("two identities")
}

pub(super) fn admission(bytes: &[u8]) {
    let mut input = Input(bytes);
    if input.byte().is_multiple_of(2) {
        let outcome = acceptor().receive(input.0);
        judge(outcome.as_ref().err());
        if let Ok((answer, admitted)) = outcome {
            assert!(secrets().by_key_id(admitted.key_id).is_some());
            assert!(dialler().0.receive(&answer).is_ok(), "who was admitted takes the answer");
        }
    } else {
        judge(dialler().0.receive(input.0).as_ref().err());
    }
}

/// A refusal has a code by which the other side knows it again.
fn judge(refused: Option<&Refused>) {
    let known = |refused: &Refused| Refused::from_code(refused.code()).map(|read| read.code()) == Some(refused.code());
    assert!(refused.is_none_or(known));
}

pub(super) fn admission_seeds() -> Vec<Vec<u8>> {
    let opening = dialler().1;
    let (answer, _) = acceptor().receive(&opening).expect("they have a secret in common");
    vec![of_kind(0, &opening), of_kind(1, &answer)]
}

pub(super) fn control(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 4 {
        0 => {
            if let Some(written) = greeting(input.0) {
                assert_eq!(greeting(&written), Some(written));
            }
        }
        1 => {
            if let Some(written) = twin_message_again(input.0) {
                assert!(written.len() <= input.0.len());
                assert_eq!(twin_message_again(&written), Some(written));
            }
        }
        _ => {
            let code = u32::from(input.byte());
            let (referral, _) = closed(code, input.0, &IDENTITIES[0], &TAG);
            let few = |endpoints: usize| endpoints <= MOST_REFERRED_ENDPOINTS;
            assert!(referral.is_none_or(|referral| {
                referral.0.len() <= MOST_REFERRED && referral.0.iter().all(|(_, endpoints)| few(endpoints.len()))
            }));
        }
    }
}

pub(super) fn control_seeds() -> Vec<Vec<u8>> {
    let reasons = some_reasons(&IDENTITIES[0], &TAG);
    let reasons = reasons.into_iter().map(|(code, reason)| of_kind(2, &of_kind(code as u8, &reason)));
    let question = [&[frame::FORMAT, 0][..], &TAG].concat();
    let signature = IDENTITIES[0].sign(b"life");
    let answer = [&[frame::FORMAT, 1][..], &TAG, &[7, 64], &signature.0].concat();
    let others = [of_kind(0, &some_greeting()), of_kind(1, &question), of_kind(1, &answer)];
    reasons.chain(others).collect()
}
