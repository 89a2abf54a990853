//! `msgin5g keys derive`: the chain from the SIM's K to the key between device and server, step by step.

use std::process::ExitCode;

use akma::{
    AKid, AfId, Amf, Fqdn, HomeNetwork, RoutingIndicator, ServingNetworkName, Sqn, Supi, UaProtocolId, UsimCredentials,
    a_tid, k_af, k_akma, k_seaf,
};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    cli::{AlgorithmArg, DeriveArgs},
    outcome::{Failure, Output},
};

/// What `--json` prints; the values are lower-case hex, but for the A-KID.
#[derive(Serialize)]
struct Chain {
    autn: String,
    res_star: String,
    k_ausf: String,
    k_seaf: String,
    k_akma: String,
    a_tid: String,
    a_kid: String,
    k_af: String,
}

pub(crate) fn derive(arguments: &DeriveArgs, output: Output) -> Result<ExitCode, Failure> {
    let credentials = credentials(
        arguments.algorithm,
        &arguments.k,
        arguments.opc.as_deref().map(Operator::Derived).or(arguments.op.as_deref().map(Operator::Plain)),
    )?;
    let rand: [u8; 16] = octets("--rand", &arguments.rand)?;
    let sqn: Sqn = parse("--sqn", &arguments.sqn)?;
    let amf: Amf = parse("--amf", &arguments.amf)?;
    let network: ServingNetworkName = parse("--snn", &arguments.snn)?;
    let home_network = home_network(&network)?;
    let supi = supi("--supi", &arguments.supi)?;
    let routing_indicator: RoutingIndicator = parse("--routing-indicator", &arguments.routing_indicator)?;
    let fqdn: Fqdn = parse("--af-fqdn", &arguments.af_fqdn)?;
    let protocol: UaProtocolId = parse("--ua-protocol", &arguments.ua_protocol)?;

    let vector = credentials.vector(&rand, sqn, amf);
    let k_ausf = vector.k_ausf(&network);
    let k_akma = k_akma(&k_ausf, &supi);
    let a_tid = a_tid(&k_ausf, &supi);
    let chain = Chain {
        autn: hex::encode(vector.autn),
        res_star: vector.xres_star(&network).to_hex().to_string(),
        k_seaf: k_seaf(&k_ausf, &network).to_hex().to_string(),
        k_ausf: k_ausf.to_hex().to_string(),
        a_kid: AKid::format(&routing_indicator, &a_tid, &home_network).to_string(),
        a_tid: a_tid.to_hex().to_string(),
        k_af: k_af(&k_akma, &AfId::new(fqdn, protocol)).to_hex().to_string(),
        k_akma: k_akma.to_hex().to_string(),
    };
    output.print(&chain, |chain| {
        format!(
            "AUTN    {}   TS 33.102 6.3.2\n\
             RES*    {}   TS 33.501 A.4\n\
             K_AUSF  {}   TS 33.501 A.2\n\
             K_SEAF  {}   TS 33.501 A.6\n\
             K_AKMA  {}   TS 33.535 A.2\n\
             A-TID   {}   TS 33.535 A.3\n\
             A-KID   {}   TS 33.535 6.1\n\
             K_AF    {}   TS 33.535 A.4",
            chain.autn, chain.res_star, chain.k_ausf, chain.k_seaf, chain.k_akma, chain.a_tid, chain.a_kid, chain.k_af
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The operator's constant, in either form.
#[derive(Clone, Copy)]
pub(crate) enum Operator<'a> {
    /// OPc or TOPc.
    Derived(&'a str),
    /// OP or TOP.
    Plain(&'a str),
}

/// The secrets of a USIM from their text.
pub(crate) fn credentials(
    algorithm: AlgorithmArg,
    k: &str,
    operator: Option<Operator<'_>>,
) -> Result<UsimCredentials, Failure> {
    let operator = operator.ok_or_else(|| Failure::usage("one of --opc and --op is needed"))?;
    match algorithm {
        AlgorithmArg::Milenage => {
            let k = Zeroizing::new(octets::<16>("--k", k)?);
            Ok(match operator {
                Operator::Derived(opc) => {
                    UsimCredentials::milenage_opc(&k, &Zeroizing::new(octets::<16>("--opc", opc)?))
                }
                Operator::Plain(op) => UsimCredentials::milenage_op(&k, &Zeroizing::new(octets::<16>("--op", op)?)),
            })
        }
        AlgorithmArg::Tuak => {
            let k = Zeroizing::new(hex::decode(k).map_err(|_| Failure::usage("--k: not hexadecimal digits"))?);
            let made = match operator {
                Operator::Derived(topc) => {
                    UsimCredentials::tuak_topc(&k, &Zeroizing::new(octets::<32>("--opc", topc)?))
                }
                Operator::Plain(top) => UsimCredentials::tuak_top(&k, &Zeroizing::new(octets::<32>("--op", top)?)),
            };
            made.map_err(|error| Failure::usage(format!("--k: {error}")))
        }
    }
}

/// Reads an option's value into its type. The value itself is not repeated: it may be a key.
pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(option: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("{option}: {error}")))
}

/// Reads a SUPI; digits alone are an IMSI.
pub(crate) fn supi(option: &str, text: &str) -> Result<Supi, Failure> {
    if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Supi::from_imsi(text).map_err(|error| Failure::usage(format!("{option}: {error}")));
    }
    parse(option, text)
}

fn octets<const N: usize>(option: &str, text: &str) -> Result<[u8; N], Failure> {
    let mut octets = [0; N];
    hex::decode_to_slice(text, &mut octets)
        .map_err(|_| Failure::usage(format!("{option}: expected {} hexadecimal digits", N * 2)))?;
    Ok(octets)
}

/// The network that the name is of. The A-KID's realm is that of the home network, which here is the serving one.
fn home_network(network: &ServingNetworkName) -> Result<HomeNetwork, Failure> {
    let domain = network.as_str().trim_start_matches("5G:");
    let domain = domain.split(':').next().unwrap_or_default();
    HomeNetwork::from_realm(&format!(".{domain}"), "")
        .map_err(|_| Failure::usage("--snn: names no network").help("write it as 5G:mnc001.mcc001.3gppnetwork.org"))
}
