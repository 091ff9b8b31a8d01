// Asks @sigstore/verify whether a checkpoint or a proof that Lethe published holds.
//
//   node check.js head   KEYS NOTE     the Ed25519 key of KEYS has signed the checkpoint
//   node check.js record KEYS PROOF    the leaf that a .tlog-proof carries is in the log
//
// A leaf of ours is no Rekor entry, so the package's public `Verifier`, which goes
// on to compare an entry with a signed artifact, stops at its body.  What is asked
// here is the part before: the functions by which it verifies that an entry is in
// a log.  Exits 0 if all holds, 1 if not, and 2 on anything else.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const { VerificationError } = require('@sigstore/verify');
const { verifyTLogInclusion } = require('@sigstore/verify/dist/tlog');
const { verifyCheckpoint } = require('@sigstore/verify/dist/tlog/checkpoint');

const HEADER = 'c2sp.org/tlog-proof@v1';
const ED25519 = 1;
const SPKI = Buffer.from('302a300506032b6570032100', 'hex'); // what precedes an Ed25519 key in RFC 8410

// Returns a trusted log, as the package holds one, for the Ed25519 key of a file.
function authority(path) {
  const vkeys = fs.readFileSync(path, 'utf8').trimEnd().split('\n');
  for (const vkey of vkeys) {
    const [name, , text] = vkey.split(/\+(.{8})\+/);
    const key = Buffer.from(text, 'base64');
    if (key[0] !== ED25519) continue;
    return {
      baseURL: `https://${name}`,
      logID: crypto.createHash('sha256').update(`${name}\n`).update(key).digest(),
      publicKey: crypto.createPublicKey({
        key: Buffer.concat([SPKI, key.subarray(1)]),
        format: 'der',
        type: 'spki',
      }),
    };
  }
  throw new Error('no Ed25519 key');
}

// Returns an entry of the log, as the package holds one, for the text of a .tlog-proof.
function entry(text, log) {
  const gap = text.indexOf('\n\n');
  const [header, extra, index, ...hashes] = text.slice(0, gap).split('\n');
  if (header !== HEADER) throw new Error('not a proof');
  return {
    logId: { keyId: log.logID },
    canonicalizedBody: Buffer.from(extra.replace(/^extra /, ''), 'base64'),
    inclusionProof: {
      logIndex: index.replace(/^index /, ''),
      hashes: hashes.map((line) => Buffer.from(line, 'base64')),
      checkpoint: { envelope: text.slice(gap + 2) },
    },
  };
}

function main([command, keys, file]) {
  const log = authority(keys);
  const text = fs.readFileSync(file, 'utf8');
  if (command === 'head') {
    verifyCheckpoint({ inclusionProof: { checkpoint: { envelope: text } } }, [log]);
  } else if (command === 'record') {
    verifyTLogInclusion(entry(text, log), [log]);
  } else {
    throw new Error('usage: check.js head|record KEYS FILE');
  }
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(`refused: ${error.message}`);
  process.exit(error instanceof VerificationError ? 1 : 2);
}
