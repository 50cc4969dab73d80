// Generates the TypeScript types of proto/collimate/v1 into proto/generated.
import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const protoRoot = dirname(fileURLToPath(import.meta.url));
const outDir = join(protoRoot, 'generated');
const files = readdirSync(join(protoRoot, 'collimate', 'v1')).filter((name) => name.endsWith('.proto'));

rmSync(outDir, { recursive: true, force: true });
execFileSync(
  process.execPath,
  [
    join(protoRoot, '..', 'node_modules', '@grpc', 'proto-loader', 'build', 'bin', 'proto-loader-gen-types.js'),
    '--longs=Number',
    '--enums=String',
    '--defaults',
    '--oneofs',
    '--grpcLib=@grpc/grpc-js',
    '--importFileExtension=.js',
    '--targetFileExtension=.ts',
    `--includeDirs=${protoRoot}`,
    `--outDir=${outDir}`,
    ...files.map((name) => `collimate/v1/${name}`),
  ],
  { stdio: 'inherit', cwd: protoRoot },
);
