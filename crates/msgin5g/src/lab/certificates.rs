//! `msgin5g lab issue` and `msgin5g lab revoke`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use lab::{CertificateRequest, Directory, LabError};
use serde::Serialize;
use uuid::Uuid;

use crate::outcome::{Failure, Output};

/// Arguments of `msgin5g lab issue`.
#[derive(Args, Debug)]
pub(crate) struct IssueArgs {
    /// Directory of the lab
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Name of the files, DIR/pki/NAME.pem and NAME.key
    #[arg(long, value_name = "NAME")]
    name: String,
    /// NF type in the certificate, as in TS 29.510: AF, AMF, UDM, ...
    #[arg(long, value_name = "TYPE")]
    nf_type: String,
    /// DNS name in the certificate; may be given more than once. localhost and 127.0.0.1 are in it anyway
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// NF instance ID in the certificate [default: a new one]
    #[arg(long, value_name = "UUID")]
    nf_instance_id: Option<Uuid>,
    /// Issue a new certificate, with a new key, in the place of the one that is there
    #[arg(long)]
    replace: bool,
}

/// Arguments of `msgin5g lab revoke`.
#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// Directory of the lab
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Name of the files: a function, an Application Server inside or outside, or what `lab issue` was told
    #[arg(value_name = "NAME")]
    name: String,
}

/// A certificate that was issued.
#[derive(Serialize)]
struct Issued {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    nf_instance_id: Uuid,
    nf_type: String,
}

/// A certificate that was revoked.
#[derive(Serialize)]
struct Revoked {
    revoked: String,
}

/// Issues a certificate and says where it is.
pub(super) fn issue(arguments: IssueArgs, output: Output) -> Result<ExitCode, Failure> {
    let authority = Directory::authority(&arguments.dir).map_err(no_lab)?;
    let name = &arguments.name;
    let there = authority.files(name);
    if !arguments.replace && (there.certificate.exists() || there.key.exists()) {
        return Err(Failure::new(format!("{} is there already", there.certificate.display()))
            .help("choose another name, or have it replaced with --replace"));
    }
    let nf_instance_id = arguments.nf_instance_id.unwrap_or_else(Uuid::new_v4);
    let mut dns_names = arguments.dns;
    dns_names.push("localhost".to_owned());
    let request = CertificateRequest {
        common_name: format!("lab {name}"),
        nf_instance_id,
        nf_type: arguments.nf_type.clone(),
        dns_names,
        addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    };
    let files = authority.issue_anew(name, &request).map_err(|error| Failure::new(error.to_string()))?;
    let issued =
        Issued { cert: files.certificate, key: files.key, ca: files.ca, nf_instance_id, nf_type: arguments.nf_type };
    output.print(&issued, |issued| {
        format!("{} for NF instance {}, an {}", issued.cert.display(), issued.nf_instance_id, issued.nf_type)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Revokes a certificate.
pub(super) fn revoke(arguments: &RevokeArgs, output: Output) -> Result<ExitCode, Failure> {
    let revocations = Directory::revocations(&arguments.dir).map_err(no_lab)?;
    revocations.revoke(&arguments.name).map_err(|error| {
        Failure::new(error.to_string()).help("the names are those of the files in DIR/pki, without .pem")
    })?;
    output.print(&Revoked { revoked: arguments.name.clone() }, |revoked| format!("{} revoked", revoked.revoked))?;
    Ok(ExitCode::SUCCESS)
}

fn no_lab(error: LabError) -> Failure {
    Failure::new(error.to_string()).help("`msgin5g lab --dir DIR` makes a lab")
}
