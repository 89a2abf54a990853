"""Our OpenAPI documents against the files of 3GPP: operations, parameters, bodies, members, values, status codes, callbacks.

    compare.py OURS CONTRACTS DEVIATIONS

OURS holds {API name: {"file": 3GPP file, "path": API path, "role": producer or consumer, "document": OpenAPI}}.
DEVIATIONS is a page with tables `| file | where | what | why |` and one `| status | why it is never answered |`: what is
found and not listed there fails, and so does what is listed and not found any more. Lengths, patterns, formats, bounds and
conditions on values are not compared.
"""

import collections
import functools
import json
import pathlib
import re
import sys

import yaml

NEVER_ANSWERED = "never answered: "
METHODS = ("get", "put", "post", "delete", "patch", "options")


class Files:
    """3GPP files, and references between them."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        # What a file says of schemas in files that are not there: {(file, absent file): names}. And what was gone through.
        self.absent, self.followed = collections.defaultdict(set), set()

    @functools.cache
    def load(self, name):
        path = self.folder / name
        return yaml.load(path.read_text(), yaml.CSafeLoader) if path.exists() else None

    def at(self, name, pointer):
        node = self.load(name)
        if node is None:
            return None
        for part in pointer.strip("/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
        return node

    def resolve(self, node, name):
        """The node that a chain of references leads to, the file it is in, and the last name on the way."""
        label = None
        while isinstance(node, dict) and "$ref" in node:
            target, _, pointer = node["$ref"].partition("#")
            name, label = target or name, pointer.rsplit("/", 1)[-1]
            node = self.at(name, pointer)
        references = [part["$ref"] for part in node.get("allOf", []) if "$ref" in part] if isinstance(node, dict) else []
        if not label and len(references) == 1:
            # That one schema, with a condition besides.
            label = references[0].rsplit("/", 1)[-1]
        return node, name, label

    def follow(self, node, name):
        """Goes through everything that a node refers to, and notes each reference that leads nowhere."""
        if isinstance(node, list):
            for part in node:
                self.follow(part, name)
        elif isinstance(node, dict):
            for key, part in node.items():
                if key != "$ref":
                    self.follow(part, name)
                    continue
                target, _, pointer = part.partition("#")
                target = target or name
                if self.load(target) is None:
                    self.absent[name, target].add(pointer.rsplit("/", 1)[-1])
                elif (target, pointer) not in self.followed:
                    self.followed.add((target, pointer))
                    self.follow(self.at(target, pointer), target)

    def unresolved(self):
        """The rows of the references that lead nowhere."""
        for (name, target), schemas in sorted(self.absent.items()):
            names = ", ".join(f"`{schema}`" for schema in sorted(schemas))
            yield name.removesuffix(".yaml"), "references", f"`{target.removesuffix('.yaml')}` is not there: {names}"


class Ours:
    """The same for one document of ours."""

    def __init__(self, document):
        self.document = document

    def resolve(self, node, name):
        label = None
        while isinstance(node, dict) and "$ref" in node:
            label = node["$ref"].rsplit("/", 1)[-1]
            node = self.document["components"]["schemas"][label]
        return node, name, label


class Shape:
    """What a schema comes down to, its combinations taken together."""

    def __init__(self, source, node, name):
        self.source = source
        node, self.name, self.label = source.resolve(node, name)
        self.known = node is not None
        self.type, self.values, self.open, self.nullable = None, None, False, False
        self.members, self.required, self.one_of_required, self.alternatives, self.items = {}, set(), set(), [], None
        self.additional, self.keeps_others = None, False
        if node:
            self.take(node, self.name)

    def take(self, node, name):
        self.type = node.get("type", self.type)
        self.nullable |= node.get("nullable", False)
        for member, schema in node.get("properties", {}).items():
            self.members[member] = (schema, name)
        self.required |= set(node.get("required", []))
        if "enum" in node:
            self.values = set(map(str, node["enum"]))
        if "items" in node:
            self.items = (node["items"], name)
        if isinstance(node.get("additionalProperties"), dict):
            self.additional = (node["additionalProperties"], name)
        self.keeps_others |= node.get("additionalProperties") is True
        for part in node.get("allOf", []):
            target, where, _ = self.source.resolve(part, name)
            if target:
                self.take(target, where)
        for key in ("anyOf", "oneOf"):
            self.combine(node.get(key, []), name)
        if self.type is None and self.members:
            self.type = "object"

    def of_something(self):
        """Whether it says anything of the value."""
        return bool(self.type or self.alternatives or self.members)

    def combine(self, parts, name):
        resolved = [self.source.resolve(part, name) for part in parts]
        if not parts or any(target is None for target, _, _ in resolved):
            return
        nodes = [target for target, _, _ in resolved]
        if any("properties" in node.get("not", {}) for node in nodes):
            return  # a condition on a value, which is not compared
        if all(set(node) <= {"required", "not", "oneOf", "anyOf"} for node in nodes):
            groups = [frozenset(node.get("required", [])) for node in nodes]
            self.one_of_required |= {name for group in groups for name in group}
        elif all(node.get("type") == "string" for node in nodes) and any("enum" in node for node in nodes):
            # 3GPP's way to write an enumeration that may grow.
            self.type = "string"
            self.values = {str(value) for node in nodes for value in node.get("enum", [])}
            self.open = any("enum" not in node for node in nodes)
        else:
            self.alternatives = [(part, name) for part in parts]


class Comparison:
    def __init__(self, file, role, ours, theirs):
        self.file, self.role, self.ours, self.theirs = file, role, Ours(ours), theirs
        self.found, self.seen, self.counts = [], set(), dict(operations=0, schemas=0, members=0)
        # What is so in many operations alike is said once.
        self.unread_headers, self.unasked_scopes, self.unsent_headers = set(), set(), set()
        # By operations or callbacks and status: those that the file lists it for, and those of them that we do not have it for.
        self.listed, self.missing = collections.defaultdict(list), collections.defaultdict(list)
        self.sent_headers = set()

    def say(self, where, what, theirs=None, name=None):
        """Notes a deviation; one of a schema under the file that defines the schema, which other APIs share, or `name`."""
        name = theirs.name if theirs and theirs.label else name
        file = name.removesuffix(".yaml") if name else self.file
        if (file, where, what) not in self.found:
            self.found.append((file, where, what))

    # --- operations ---------------------------------------------------------------------------------------

    def api(self, path):
        contract = self.theirs.load(f"{self.file}.yaml")
        mine = {at.removeprefix(path): item for at, item in self.ours.document["paths"].items()}
        served = {(shape(at), method): (at, item[method]) for at, item in mine.items() for method in item}
        servers = [server["url"].removeprefix("{apiRoot}") for server in contract.get("servers", [{"url": ""}])]
        if path not in servers:
            self.say("all operations", f"at `{path}`, there at `{'`, `'.join(servers)}`")
        wanted = {}
        for at, item in contract["paths"].items():
            item, name, _ = self.theirs.resolve(item, f"{self.file}.yaml")
            for method in METHODS:
                if method in item:
                    wanted[shape(at), method] = (at, item[method], item.get("parameters", []), contract.get("security"))
        for key, (at, operation, shared, security) in wanted.items():
            where = f"{key[1].upper()} {at}"
            if key not in served:
                self.say(where, "not served" if self.role == "producer" else "not asked for")
                continue
            self.counts["operations"] += 1
            self.variables(where, *served[key], at, list(shared) + operation.get("parameters", []))
            self.theirs.follow([operation, shared], f"{self.file}.yaml")
            self.operation(where, served[key][1], operation, shared, security)
        for key, (at, _) in served.items():
            if key not in wanted:
                self.say(f"{key[1].upper()} {at}", "ours alone")
        self.statuses()
        for names, what in ((self.unread_headers, "header parameters that are not read"),
                            ({name for _, _, name in self.unsent_headers} - self.sent_headers, "headers of answers that are never sent"),
                            (self.unasked_scopes, "no access token is looked at, there those with the scopes")):
            if names:
                self.say("all operations", f"{what}: {', '.join(f'`{name}`' for name in sorted(names))}")

    def operation(self, where, mine, theirs, shared=(), security=None):
        file = f"{self.file}.yaml"
        self.parameters(where, mine.get("parameters", []), list(shared) + theirs.get("parameters", []))
        if security is not None:
            self.scopes(where, mine.get("security", []), theirs.get("security", security))
        body, _, _ = self.theirs.resolve(theirs.get("requestBody"), file)
        self.content(where, "request", mine.get("requestBody", {}).get("content", {}), (body or {}).get("content", {}), file)
        self.responses(where, mine["responses"], theirs["responses"])
        mine_back, theirs_back = mine.get("callbacks", {}), theirs.get("callbacks", {})
        for name in sorted(theirs_back.keys() - mine_back.keys()):
            self.say(where, f"callback `{name}` is not there")
        for name in sorted(mine_back.keys() - theirs_back.keys()):
            self.say(where, f"callback `{name}` is ours alone")
        for name in mine_back.keys() & theirs_back.keys():
            (my_expression, my_item), = mine_back[name].items()
            (their_expression, their_item), = theirs_back[name].items()
            if my_expression.replace("$", "") != their_expression.replace("$", ""):
                self.say(where, f"callback `{name}` at `{my_expression}`, there `{their_expression}`")
            for method in METHODS:
                if method in their_item and method in my_item:
                    self.counts["operations"] += 1
                    self.operation(f"{where} callback {name}", my_item[method], their_item[method])
                elif method in their_item:
                    self.say(where, f"callback `{name}`: {method.upper()} is not there")

    def statuses(self):
        """Errors that are listed and that we do not have: said once where no operation has them, else for each operation."""
        for these in ("all operations", "all callbacks"):
            never = sorted(key[1] for key, places in self.missing.items() if key[0] == these and places == self.listed[key])
            if never:
                self.say(these, f"{NEVER_ANSWERED}{', '.join(f'`{status}`' for status in never)}")
        for key, places in sorted(self.missing.items()):
            for where in places if places != self.listed[key] else ():
                self.say(where, f"{NEVER_ANSWERED}`{key[1]}`")
        for where, status, name in sorted(self.unsent_headers):
            if name in self.sent_headers:
                self.say(where, f"{status} has no `{name}`, unlike there")

    def variables(self, where, my_path, mine, their_path, theirs):
        """The variables of the path, known by their places."""
        names = [re.findall(r"{(.*?)}", path) for path in (my_path, their_path)]
        theirs = [self.theirs.resolve(parameter, f"{self.file}.yaml")[0] for parameter in theirs]
        of_path = [{p["name"]: p for p in parameters if p["in"] == "path"} for parameters in (mine["parameters"] if names[0] else [], theirs)]
        for my_name, their_name in zip(*names, strict=True):
            one, other = of_path[0][my_name], of_path[1][their_name]
            self.schema(f"{where} {their_name}", parameter_schema(one), parameter_schema(other), f"{self.file}.yaml")

    def parameters(self, where, mine, theirs):
        file = f"{self.file}.yaml"
        theirs = [self.theirs.resolve(parameter, file)[0] for parameter in theirs]
        # A variable of the path is known by its place.
        named = lambda parameters: {(p["in"], p["name"]): p for p in parameters if p and p["in"] != "path"}
        mine, theirs = named(mine), named(theirs)
        absent = theirs.keys() - mine.keys()
        self.unread_headers |= {name for place, name in absent if place == "header"}
        for place in ("query", "cookie"):
            names = sorted(name for at, name in absent if at == place)
            if names:
                self.say(where, f"{place} parameters that are not read: {', '.join(f'`{name}`' for name in names)}")
        for place, name in sorted(mine.keys() - theirs.keys()):
            self.say(where, f"{place} parameter `{name}` is ours alone")
        for key in mine.keys() & theirs.keys():
            place, name = key
            if mine[key].get("required", False) != theirs[key].get("required", False):
                self.say(where, f"{place} parameter `{name}` is {mandatory(mine[key])} here, {mandatory(theirs[key])} there")
            self.schema(f"{where} {name}", parameter_schema(mine[key]), parameter_schema(theirs[key]), file)
            written = [(p.get("style", "form"), p.get("explode", p.get("style", "form") == "form")) for p in (mine[key], theirs[key])]
            if parameter_schema(mine[key]).get("type") == "array" and written[0] != written[1]:
                self.say(where, f"{place} parameter `{name}` is a list written as {written[0]}, there as {written[1]}")

    def scopes(self, where, mine, theirs):
        names = lambda alternatives: {scope for a in alternatives for scopes in a.values() for scope in scopes}
        mine, theirs = names(mine), names(theirs)
        if not theirs:
            return  # TS 29.500 clause 6.7.3: the scope is then the name of the service, which no file repeats
        if not mine:
            self.unasked_scopes |= theirs
            return
        for scope in sorted(theirs - mine):
            self.say(where, f"scope `{scope}` is not there")
        for scope in sorted(mine - theirs):
            self.say(where, f"scope `{scope}` is ours alone")

    def responses(self, where, mine, theirs):
        file = f"{self.file}.yaml"
        for status in sorted(mine.keys() | theirs.keys()):
            success = status.startswith("2")
            key = ("all callbacks" if " callback " in where else "all operations", status)
            if status in theirs and not success:
                self.listed[key].append(where)
            if status not in mine:
                if success:
                    self.say(where, f"{status} is {'never answered' if self.role == 'producer' else 'not expected'}")
                else:
                    self.missing[key].append(where)
            elif status not in theirs:
                if success or "default" not in theirs:
                    self.say(where, f"{status} is not listed there")
            else:
                theirs_here, name, _ = self.theirs.resolve(theirs[status], file)
                self.content(where, status, mine[status].get("content", {}), theirs_here.get("content", {}), name)
                headers = [set(side.get("headers", {})) for side in (mine[status], theirs_here)]
                location = ["Location" in side for side in headers]
                if location[0] != location[1]:
                    self.say(where, f"{status} {'has' if location[0] else 'has no'} Location, unlike there")
                self.sent_headers |= headers[0]
                self.unsent_headers |= {(where, status, name) for name in headers[1] - headers[0] - {"Location"}}

    def content(self, where, what, mine, theirs, name):
        if not mine and not theirs:
            return
        if bool(mine) != bool(theirs):
            self.say(where, f"{what} has {'a' if mine else 'no'} body, unlike there")
            return
        for media_type in sorted(mine.keys() - theirs.keys()):
            self.say(where, f"{what} is `{media_type}`, there `{'`, `'.join(sorted(theirs))}`")
        unspoken = sorted(theirs.keys() - mine.keys())
        if unspoken and mine.keys() & theirs.keys():
            self.say(where, f"{what} is never `{'`, `'.join(unspoken)}`")
        for media_type in sorted(mine):
            # A body of another media type alone is compared all the same.
            other = theirs.get(media_type) or (next(iter(theirs.values())) if len(mine) == 1 else {})
            if "schema" in other:
                self.schema(f"{where} {what}", mine[media_type]["schema"], other["schema"], name)

    # --- schemas ------------------------------------------------------------------------------------------

    def schema(self, where, mine, theirs, name):
        mine, theirs = Shape(self.ours, mine, ""), Shape(self.theirs, theirs, name)
        if mine.label:
            key = (mine.label, theirs.label or where)
            if key in self.seen:
                return
            self.seen.add(key)
            self.counts["schemas"] += 1
            where = mine.label if mine.label == theirs.label else f"{mine.label} ({theirs.label or where})"
        if not theirs.known:
            self.say(where, f"not compared: `{theirs.label}` is in a file that is not there", name=name)
            return
        if not mine.of_something() and theirs.of_something():
            self.say(where, f"kept as it came, there `{theirs.label or theirs.type or 'one of several'}`", name=name)
            return
        if mine.alternatives or theirs.alternatives:
            self.alternatives(where, mine, theirs)
            return
        if (mine.type or "any") != (theirs.type or "any"):
            self.say(where, f"`{mine.type or 'any'}` here, `{theirs.type or 'any'}` there", theirs)
            return
        if mine.nullable != theirs.nullable:
            self.say(where, f"null is {'a value' if mine.nullable else 'no value'} here, unlike there", theirs)
        self.values(where, mine, theirs)
        self.members(where, mine, theirs)
        for attribute, suffix in (("items", "[]"), ("additional", "{}")):
            one, other = getattr(mine, attribute), getattr(theirs, attribute)
            if one and other:
                self.schema(f"{where}{suffix}", one[0], *other)
            elif one or other:
                self.say(where, f"{'a map' if suffix == '{}' else 'a list with a schema'} {'here' if one else 'there'} alone", theirs)

    def alternatives(self, where, mine, theirs):
        """Each of ours has to be one of theirs, by name or by type."""
        options = [Shape(self.theirs, *part) for part in theirs.alternatives] or [theirs]
        references = {id(option): part for option, part in zip(options, theirs.alternatives, strict=False)}
        parts = mine.alternatives or [({"$ref": f"/{mine.label}"} if mine.label else self.as_node(mine), "")]
        for part, name in parts:
            one = Shape(self.ours, part, name)
            other = next((o for o in options if one.label and o.label == one.label), None)
            other = other or next((o for o in options if not one.label and o.type == one.type), None)
            if other is None:
                self.say(where, f"alternative `{one.label or one.type}` is ours alone", theirs)
            elif one.label:
                self.schema(where, part, *references.get(id(other), ({}, "")))
            options = [option for option in options if option is not other]
        for option in options:
            self.say(where, f"alternative `{option.label or option.type}` is not read", theirs)

    @staticmethod
    def as_node(shape):
        return {"type": shape.type}

    def values(self, where, mine, theirs):
        if mine.values is None and theirs.values is None:
            return
        where = theirs.label or where
        if mine.values is None or theirs.values is None:
            self.say(where, f"an enumeration {'there' if mine.values is None else 'here'} alone", theirs)
            return
        for values, what in ((theirs.values - mine.values, "not named"), (mine.values - theirs.values, "values of ours alone")):
            if values:
                self.say(where, f"{what}: {', '.join(f'`{value}`' for value in sorted(values))}", theirs)
        if mine.open != theirs.open:
            self.say(where, f"the enumeration is {'open' if mine.open else 'closed'} here, unlike there", theirs)

    def members(self, where, mine, theirs):
        absent = sorted(theirs.members.keys() - mine.members.keys())
        if absent:
            kept = "kept as they came" if mine.keeps_others else "not kept"
            self.say(where, f"{kept}: {', '.join(f'`{name}`' for name in absent)}", theirs)
        added = sorted(mine.members.keys() - theirs.members.keys())
        if added:
            self.say(where, f"ours alone: {', '.join(f'`{name}`' for name in added)}", theirs)
        for name in sorted(mine.required - theirs.required):
            self.say(where, f"`{name}` is mandatory here, not there", theirs)
        for name in sorted(theirs.required - mine.required):
            self.say(where, f"`{name}` is mandatory there, not here", theirs)
        if mine.one_of_required != theirs.one_of_required:
            groups = [" or ".join(f"`{name}`" for name in sorted(side.one_of_required)) or "any" for side in (mine, theirs)]
            self.say(where, f"one of {groups[0]} here, of {groups[1]} there", theirs)
        for name in sorted(mine.members.keys() & theirs.members.keys()):
            self.counts["members"] += 1
            self.schema(f"{where}.{name}", mine.members[name][0], *theirs.members[name])


def shape(path):
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def mandatory(parameter):
    return "mandatory" if parameter.get("required", False) else "optional"


def parameter_schema(parameter):
    return parameter["schema"] if "schema" in parameter else next(iter(parameter["content"].values()))["schema"]


def listed(page):
    """The rows of the page, and where a reason is missing."""
    rows = {}
    for line in pathlib.Path(page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| TS") and len(cells) == 4:
            assert cells[3], f"no reason given: {line}"
            assert tuple(cells[:3]) not in rows, f"listed twice: {line}"
            rows[tuple(cells[:3])] = cells[3]
    return rows


def explained(page):
    """The statuses that the page explains."""
    lines = pathlib.Path(page).read_text().splitlines()
    return {status for line in lines if re.match(r"\| `?(\d{3}|default)`", line)
            for status in re.findall(r"`(\d{3}|default)`", line.split(" | ")[0])}


def main(ours, contracts, page):
    files, known, found = Files(contracts), listed(page), []
    print(f"{'API':<28} {'3GPP file':<36} {'role':<9} {'operations':>10} {'schemas':>8} {'members':>8} {'deviations':>10}")
    for name, api in json.loads(pathlib.Path(ours).read_text()).items():
        comparison = Comparison(api["file"], api["role"], api["document"], files)
        comparison.api(api["path"])
        c = comparison.counts
        print(f"{name:<28} {api['file']:<36} {api['role']:<9} {c['operations']:>10} {c['schemas']:>8} {c['members']:>8}"
              f" {len(comparison.found):>10}")
        found += [row for row in comparison.found if row not in found]
    found += [row for row in files.unresolved() if row not in found]
    never = {status for _, _, what in found if what.startswith(NEVER_ANSWERED) for status in re.findall(r"`(\w+)`", what)}
    for status in sorted(never ^ explained(page)):
        print(f"{status} is {'not explained' if status in never else 'explained, and missing nowhere'}")
    unlisted, gone = [row for row in found if row not in known], [row for row in known if row not in found]
    if unlisted:
        print("\nnot listed:")
        for row in unlisted:
            print(f"| {' | '.join(row)} |  |")
    if gone:
        print("\nlisted, but not there any more:")
        for row in gone:
            print(f"| {' | '.join(row)} | {known[row]} |")
    if unlisted or gone or never ^ explained(page):
        sys.exit(1)
    print(f"\n{len(found)} deviations, each listed with its reason\nall held")


if __name__ == "__main__":
    main(*sys.argv[1:])
