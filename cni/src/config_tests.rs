use super::*;

fn code(input: &str) -> Code {
    Config::parse(input.as_bytes()).unwrap_err().code
}

fn parse(input: &str) -> Config {
    Config::parse(input.as_bytes()).unwrap()
}

#[test]
fn the_least_configuration_gets_defaults() {
    let config = parse(r#"{"cniVersion":"1.0.0","name":"mesh","type":"mesh-cni"}"#);
    assert_eq!(config.socket, PathBuf::from(DEFAULT_SOCKET));
    assert_eq!((config.mtu(), config.masquerade(), config.duty), (None, true, Duty::Link));
    assert!(config.arguments.labels().is_empty());
}

#[test]
fn every_key_is_read_and_foreign_ones_are_left_alone() {
    let config = parse(
        r#"{"cniVersion":"0.4.0","name":"mesh","type":"mesh-cni","socket":"/s","mtu":1400,"ipMasq":false,
            "runtimeConfig":{"portMappings":[]},"capabilities":{"x":true},"dns":{"domain":"x"},"ipam":{},
            "routes":[{"dst":"192.0.2.0/24"}]}"#,
    );
    assert_eq!((config.socket.to_str(), config.mtu(), config.masquerade()), (Some("/s"), Some(1400), false));
    let routes = config.own.routes.unwrap();
    assert_eq!(routes[0].dst, "192.0.2.0/24".parse().unwrap());
    assert_eq!(config.own.dns.unwrap()["domain"], "x");
}

#[test]
fn null_is_as_good_as_nothing() {
    let config = parse(
        r#"{"cniVersion":"1.1.0","name":"mesh","type":null,"ipam":null,"args":null,"runtimeConfig":null,"mtu":null,
            "routes":null,"prevResult":null,"dns":null,"socket":null,"ipMasq":null}"#,
    );
    assert_eq!((config.duty, config.previous), (Duty::Link, None));
}

#[test]
fn under_another_plugin_the_keys_of_our_own_are_those_of_the_ipam_section() {
    let config = parse(
        r#"{"cniVersion":"1.0.0","name":"other","type":"bridge","mtu":"its own","ipMasq":7,"routes":{},"socket":"/top",
            "ipam":{"type":"mesh-cni","routes":[]}}"#,
    );
    assert_eq!((config.duty, config.mtu(), config.masquerade()), (Duty::Addresses, None, true));
    assert_eq!((config.own.routes, config.socket.to_str()), (Some(vec![]), Some("/top")));
    let own = r#"{"cniVersion":"1.0.0","name":"mesh","type":"ptp","ipam":{"type":"mesh-cni","socket":"/own"},"socket":"/top"}"#;
    assert_eq!(parse(own).socket.to_str(), Some("/own"));
    let itself = r#"{"cniVersion":"1.0.0","name":"mesh","type":"mesh-cni","ipam":{"type":"mesh-cni"}}"#;
    assert_eq!(parse(itself).duty, Duty::Link);
}

#[test]
fn wrong_input_gets_the_code_that_the_specification_gives_it() {
    let deep = "[".repeat(100_000);
    let wrong = [
        ("", Code::Decode),
        ("[]", Code::Decode),
        ("null", Code::Decode),
        ("{} {}", Code::Decode),
        (&deep, Code::Decode),
        (r#"{"cniVersion":"1.0.0"}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":null}"#, Code::Decode),
        (r#"{"name":"mesh"}"#, Code::IncompatibleVersion),
        (r#"{"cniVersion":7,"name":"mesh"}"#, Code::IncompatibleVersion),
        (r#"{"cniVersion":null,"name":"mesh"}"#, Code::IncompatibleVersion),
        (r#"{"cniVersion":"0.3.0","name":"mesh"}"#, Code::IncompatibleVersion),
        (r#"{"cniVersion":"1.2.0","name":"mesh"}"#, Code::IncompatibleVersion),
        (r#"{"cniVersion":"1.0.0","name":""}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":"a b"}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":"-mesh"}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":"mesh","mtu":576}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":"mesh","mtu":65536}"#, Code::InvalidConfig),
        (r#"{"cniVersion":"1.0.0","name":"mesh","mtu":-1}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","mtu":"1400"}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","ipMasq":"no"}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","socket":[]}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","type":1}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","args":[]}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","runtimeConfig":[]}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","prevResult":[]}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","prevResult":"none"}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","runtimeConfig":{"ips":"10.32.0.9"}}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","routes":[{"dst":"everywhere"}]}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","routes":[{"gw":"10.0.0.1"}]}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","ipam":"host-local"}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","ipam":{"type":7}}"#, Code::Decode),
        (r#"{"cniVersion":"1.0.0","name":"mesh","ipam":{"type":"host-local"}}"#, Code::UnsupportedField),
        (
            r#"{"cniVersion":"1.0.0","name":"mesh","type":"bridge","ipam":{"type":"host-local"}}"#,
            Code::UnsupportedField,
        ),
        (r#"{"cniVersion":"1.0.0","name":"m","type":"ptp","ipam":{"type":"mesh-cni","routes":7}}"#, Code::Decode),
    ];
    for (input, expected) in wrong {
        assert_eq!(code(input), expected, "{}", input.get(..input.len().min(120)).unwrap());
    }
    println!("figure: {} wrong configurations refused with the code of the specification", wrong.len());
}

#[test]
fn a_verb_is_refused_before_the_version_that_brought_it() {
    let of = |version: &str| parse(&format!(r#"{{"cniVersion":"{version}","name":"mesh"}}"#));
    assert!(of("1.1.0").require("1.1.0", "GC").is_ok() && of("0.4.0").require("0.4.0", "CHECK").is_ok());
    for (version, since) in [("1.0.0", "1.1.0"), ("0.3.1", "0.4.0")] {
        assert_eq!(of(version).require(since, "X").unwrap_err().code, Code::IncompatibleVersion);
    }
}
