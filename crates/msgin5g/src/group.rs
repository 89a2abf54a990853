//! `msgin5g group`: groups at the Configuration Function, or at a SEAL group management server that answers alike.

use std::process::ExitCode;

use message::{ServiceAddress, UeServiceId};
use sbi::{
    SbiError,
    ss_gm::{GroupConfiguration, GroupQuery, GroupSender, SsGmClient, VALGroupDocument, VALGroupDocumentPatch, member},
    ss_upr::ValTargetUe,
};
use serde::Serialize;

use crate::{
    cli::{GroupAddArgs, GroupArgs, GroupCommand, GroupMemberArgs, GroupMemberCommand, ProvisioningArgs},
    keys,
    outcome::{Failure, Output},
    provisioning::{Removed, reach, refused},
};

pub(crate) async fn run(command: GroupCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        GroupCommand::Add(arguments) => add(&arguments, output).await?,
        GroupCommand::Show(arguments) => {
            let document = find(&arguments).await?;
            output.print(&Group::of(&document)?, Group::lines)?;
        }
        GroupCommand::List(target) => list(&target, output).await?,
        GroupCommand::Remove(arguments) => {
            let id = group_id(&arguments)?;
            if !client(&arguments.target)?.remove(&id).await.map_err(failed)? {
                return Err(unknown(&id));
            }
            output.print(&Removed { removed: id.as_str() }, |removed| format!("removed {}", removed.removed))?;
        }
        GroupCommand::Member { command: GroupMemberCommand::Add(arguments) } => {
            change_members(&arguments, output, |members, changed| {
                let new: Vec<_> = changed.into_iter().filter(|id| !members.contains(id)).collect();
                members.extend(new);
            })
            .await?;
        }
        GroupCommand::Member { command: GroupMemberCommand::Remove(arguments) } => {
            change_members(&arguments, output, |members, changed| members.retain(|id| !changed.contains(id))).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the commands print of a group.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    group_id: ServiceAddress,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    members: Vec<UeServiceId>,
    senders: Vec<GroupSender>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validating_as: Option<String>,
}

impl Group {
    fn of(document: &VALGroupDocument) -> Result<Self, Failure> {
        let wrong = |error| Failure::new(format!("{}: {error}", document.val_group_id));
        let configuration = document.configuration().map_err(wrong)?;
        Ok(Self {
            group_id: document.val_group_id.clone(),
            description: document.grp_desc.clone(),
            members: document.ue_service_ids().map_err(wrong)?,
            senders: configuration.senders,
            validating_as: configuration.validating_as.map(|id| id.as_str().to_owned()),
        })
    }

    /// One line, for a list.
    fn line(&self) -> String {
        let count = self.members.len();
        let members = if count == 1 { "member" } else { "members" };
        let description = self.description.as_ref().map(|text| format!("  {text}")).unwrap_or_default();
        format!("{}  {count} {members}{description}", self.group_id)
    }

    /// The whole, a line for each fact.
    fn lines(&self) -> String {
        let senders = self.senders.iter().map(|sender| ("sender", sender.to_string()));
        let members = self.members.iter().map(|member| ("member", member.to_string()));
        let validating = self.validating_as.iter().map(|id| ("validating AS", id.clone()));
        let description = self.description.iter().map(|text| ("description", text.clone()));
        [("group", self.group_id.to_string())]
            .into_iter()
            .chain(description)
            .chain(members)
            .chain(senders)
            .chain(validating)
            .map(|(name, value)| format!("{name:<14}{value}\n"))
            .collect()
    }
}

async fn add(arguments: &GroupAddArgs, output: Output) -> Result<(), Failure> {
    let senders = arguments.senders.iter().map(|text| sender(text)).collect::<Result<_, _>>()?;
    let validating_as = arguments.validating_as.as_deref().map(|id| keys::parse("--validating-as", id)).transpose()?;
    let mut document = VALGroupDocument::new(group_id(&arguments.group)?).with_members(&members(&arguments.members)?);
    document.grp_desc = arguments.description.clone();
    document.val_grp_conf = GroupConfiguration { senders, validating_as }.to_text();
    let document = client(&arguments.group.target)?.create(&document).await.map_err(failed)?;
    output.print(&Group::of(&document)?, |group| format!("added {}", group.line()))
}

async fn list(target: &ProvisioningArgs, output: Output) -> Result<(), Failure> {
    let client = client(target)?;
    let mut query = GroupQuery { after: Some(String::new()), ..GroupQuery::default() };
    loop {
        let page = client.documents(&query).await.map_err(failed)?;
        let Some(last) = page.last() else { return Ok(()) };
        query.after = Some(last.val_group_id.as_str().to_owned());
        for document in &page {
            match Group::of(document) {
                Ok(group) => output.print(&group, Group::line)?,
                // Of another service, perhaps; it is there all the same.
                Err(_) => output.print(document, |document| format!("{}  not for MSGin5G", document.val_group_id))?,
            }
        }
    }
}

async fn change_members(
    arguments: &GroupMemberArgs,
    output: Output,
    change: impl FnOnce(&mut Vec<UeServiceId>, Vec<UeServiceId>),
) -> Result<(), Failure> {
    let changed = members(&arguments.members)?;
    let mut document = find(&arguments.group).await?;
    let mut now = Group::of(&document)?.members;
    change(&mut now, changed);
    document = document.with_members(&now);
    // A list in the API has at least one element: none of them is no list.
    let list: Vec<ValTargetUe> = now.iter().map(member).collect();
    let patch = VALGroupDocumentPatch {
        members: Some(if list.is_empty() { None } else { Some(list) }),
        ..VALGroupDocumentPatch::default()
    };
    client(&arguments.group.target)?.modify(&document.val_group_id, &patch).await.map_err(failed)?;
    output.print(&Group::of(&document)?, Group::line)
}

async fn find(arguments: &GroupArgs) -> Result<VALGroupDocument, Failure> {
    let id = group_id(arguments)?;
    client(&arguments.target)?.document(&id).await.map_err(failed)?.ok_or_else(|| unknown(&id))
}

fn unknown(id: &ServiceAddress) -> Failure {
    Failure::new(format!("no group {id}")).help("`msgin5g group list` tells which there are")
}

fn failed(error: SbiError) -> Failure {
    match &error {
        SbiError::Problem(problem) if problem.has_cause("GROUP_EXISTS") => {
            Failure::new("there is a group of that name")
                .help("change it with `msgin5g group member`, or remove it first")
        }
        _ => refused("Configuration Function", &error),
    }
}

fn group_id(arguments: &GroupArgs) -> Result<ServiceAddress, Failure> {
    keys::parse("--group-id", &arguments.group_id)
}

fn members(texts: &[String]) -> Result<Vec<UeServiceId>, Failure> {
    let mut members: Vec<UeServiceId> = Vec::new();
    for text in texts {
        let id = keys::parse("--member", text)?;
        if !members.contains(&id) {
            members.push(id);
        }
    }
    Ok(members)
}

/// `ue:ID` or `as:ID`, as `client send --to` has it.
fn sender(text: &str) -> Result<GroupSender, Failure> {
    let (kind, id) = text.split_once(':').unwrap_or_default();
    format!("{}:{id}", kind.to_ascii_uppercase())
        .parse()
        .map_err(|_| Failure::usage(format!("--sender: `{text}` is neither ue:UE_SERVICE_ID nor as:AS_SERVICE_ID")))
}

fn client(target: &ProvisioningArgs) -> Result<SsGmClient, Failure> {
    let (http, root) = reach(target, |lab| &lab.json.core.configuration)?;
    Ok(SsGmClient::new(http, root))
}
