// Parses each AsyncAPI document that is named, and says what is wrong with it.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// The packages lie beside the tools, not beside this file.
const { Parser } = createRequire(`${process.env.PACKAGES}/`)("@asyncapi/parser");
// The version is 3.0 on purpose, and brokers are known to whoever runs them only.
const rules = { "asyncapi-latest-version": "off", "asyncapi-3-servers": "off" };
const parser = new Parser();
let wrong = 0;
for (const name of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(readFileSync(name, "utf8"));
  for (const { code, path, message } of diagnostics.filter(({ code }) => rules[code] !== "off")) {
    console.error(`${name}: ${path.join("/")}: ${message} (${code})`);
    wrong += 1;
  }
  if (!document) wrong += 1;
}
process.exit(wrong ? 1 : 0);
