//! `meshlab` as people and scripts use it: names, paths and verbs that others rely on.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::path::Path;
use std::process::{Command, Output};

const LAB: &str = "cmdline";

/// Takes the lab away however the story ends.
struct Cleaned;

impl Drop for Cleaned {
    fn drop(&mut self) {
        meshlab(&["down", "--name", LAB]);
    }
}

#[test]
fn a_lab_is_made_used_and_taken_away() {
    let _cleaned = Cleaned;
    let said = succeed(&["up", "--hosts", "2", "--name", LAB]);
    assert!(said.contains("2 hosts are one mesh"), "{said}");
    for host in ["h1", "h2"] {
        assert!(Path::new(&format!("/run/netns/mwlab-{LAB}-{host}")).exists());
        assert!(Path::new(&format!("/run/meshlab/{LAB}/{host}/meshd.sock")).exists());
    }

    let first = address(&succeed(&["pod", "h1", "--name", LAB]));
    let web = address(&succeed(&["pod", "h2", "web", "--name", LAB]));
    let listed = succeed(&["ls"]);
    assert!(listed.contains(&format!("lab {LAB}")) && listed.contains(&first) && listed.contains(&web), "{listed}");

    let ping = |from: &str, to: &str| meshlab(&["exec", from, "--name", LAB, "--", "ping", "-c1", "-W1", to]);
    assert!(ping("h1/p1", &web).status.success());
    succeed(&["cut", "h1", "h2", "--name", LAB]);
    assert!(!ping("h1", "198.18.0.10").status.success());
    succeed(&["heal", "--name", LAB]);
    assert!(ping("h1", "198.18.0.10").status.success());
    succeed(&["partition", "h1", "h2", "--name", LAB]);
    assert!(!ping("h1", "198.18.0.10").status.success());
    succeed(&["heal", "--name", LAB]);
    assert!(ping("h1", "198.18.0.10").status.success());

    let conditions = ["--loss", "1", "--delay", "20", "--rate", "100mbit", "--mtu", "1400"];
    let told = succeed(&[&["link", "h1"][..], &conditions, &["--name", LAB]].concat());
    assert_eq!(told, "h1  delay 20ms, loss 1 %, rate 100000000bit, mtu 1400\n");
    let line = ["exec", "h1", "--name", LAB, "--", "sh", "-c", "ip link show eth0; tc qdisc show dev eth0"];
    let shown = succeed(&line);
    assert!(shown.contains("mtu 1400") && shown.contains("tbf") && shown.contains("100Mbit"), "{shown}");
    let told = succeed(&["link", "h1", "--loss", "100", "--name", LAB]);
    assert!(told.contains("loss 100 %") && told.contains("delay 20ms"), "the rest stays: {told}");
    assert!(!ping("h1", "198.18.0.10").status.success());
    assert_eq!(succeed(&["link", "h1", "--clean", "--name", LAB]), "h1  good\n");
    assert!(ping("h1", "198.18.0.10").status.success());
    let shown = succeed(&line);
    assert!(shown.contains("mtu 1500") && !shown.contains("tbf"), "{shown}");

    succeed(&["down", "--name", LAB]);
    assert!(!Path::new(&format!("/run/netns/mwlab-{LAB}-h1")).exists());
    assert!(!Path::new(&format!("/run/meshlab/{LAB}")).exists());
    assert!(!succeed(&["ls"]).contains(&format!("lab {LAB}\n")));
    succeed(&["down", "--name", LAB]);
}

#[test]
fn what_does_not_exist_is_named_with_what_to_do() {
    let output = meshlab(&["heal", "--name", "nosuchlab"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nosuchlab") && said.contains("meshlab up"), "{said}");
}

#[test]
fn an_output_that_nobody_reads_is_no_panic() {
    const LAB: &str = "unheard";
    for words in [&["up", "--hosts", "1", "--name", LAB][..], &["ls"], &["pod", "h1", "--name", LAB]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let errors = writer.try_clone().unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_meshlab")).args(words).stdout(writer).stderr(errors).status();
        let code = status.unwrap().code();
        // What was asked for is done before it is told; a list that nobody reads may end early.
        assert!(code == Some(0) || (code == Some(141) && words == ["ls"]), "{words:?}: {code:?}");
    }
    let listed = succeed(&["ls"]);
    succeed(&["down", "--name", LAB]);
    assert!(listed.contains(&format!("lab {LAB}\n")), "{listed}");
}

fn meshlab(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshlab")).args(words).output().unwrap()
}

fn succeed(words: &[&str]) -> String {
    let output = meshlab(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `NAME  NAMESPACE  IPV4  IPV6`
fn address(line: &str) -> String {
    line.split_whitespace().nth(2).unwrap().to_owned()
}
