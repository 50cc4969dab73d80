import { afterEach, describe, expect, it, vi } from 'vitest';

import { StoreAddressError } from './errors.js';
import { parseS3Address } from './s3-address.js';
import { openStore, S3ArtifactStore } from './store.js';

afterEach(() => {
  vi.unstubAllEnvs();
});

describe('S3 addresses', () => {
  it.each([
    [
      's3://bucket',
      { bucket: 'bucket', prefix: '', endpoint: null, region: null, pathStyle: false, url: 's3://bucket' },
    ],
    ['s3://bucket/', { prefix: '', url: 's3://bucket' }],
    ['s3://a.b-c/one/two.x/', { bucket: 'a.b-c', prefix: 'one/two.x/', url: 's3://a.b-c/one/two.x' }],
    ['s3://bucket/p?region=eu-west-1', { region: 'eu-west-1', pathStyle: false }],
    ['s3://bucket?endpoint=http://127.0.0.1:9000', { endpoint: 'http://127.0.0.1:9000', pathStyle: true }],
    ['s3://bucket?endpoint=https://r2.example&pathStyle=false', { endpoint: 'https://r2.example', pathStyle: false }],
    ['S3://bucket?pathStyle=true', { pathStyle: true }],
  ])('takes %s', (text, expected) => {
    vi.stubEnv('AWS_ENDPOINT_URL', '');
    expect(parseS3Address(text)).toMatchObject(expected);
    expect(openStore(text)).toBeInstanceOf(S3ArtifactStore);
    expect(parseS3Address(openStore(text).url)).toMatchObject(expected);
  });

  it('takes the path style where the environment names a server', () => {
    vi.stubEnv('AWS_ENDPOINT_URL', 'http://127.0.0.1:9000');
    expect(parseS3Address('s3://bucket')).toMatchObject({ endpoint: null, pathStyle: true });
  });

  it.each([
    ['s3://', /expected a bucket name .* got ""/],
    ['s3://B/x', /expected a bucket name .* got "B"/],
    ['s3://bucket//x', /between single slashes, got ""/],
    ['s3://bucket/../x', /got "\.\."/],
    ['s3://bucket/a b', /got "a b"/],
    ['s3://bucket?endpont=http://x', /expected only endpoint, region, pathStyle after "\?", got "endpont"/],
    ['s3://bucket?endpoint=127.0.0.1:9000', /expected an endpoint/],
    ['s3://bucket?endpoint=ftp://host', /begins with http:\/\/ or https:\/\/, got "ftp:\/\/"/],
    ['s3://bucket?pathStyle=yes', /pathStyle=true or pathStyle=false, got "yes"/],
    ['s3://bucket?region=EU%20West', /expected a region name/],
  ])('refuses %s', (text, message) => {
    expect(() => openStore(text)).toThrow(StoreAddressError);
    expect(() => openStore(text)).toThrow(message);
  });

  it.each(['s3://user:pass@bucket/p', 's3://key@bucket', 's3://bucket?endpoint=http://user:pass@host:1'])(
    'refuses credentials in %s, and does not repeat them',
    (text) => {
      expect(() => openStore(text)).toThrow(/without credentials/);
      expect(() => openStore(text)).not.toThrow(/pass|user|key@/);
    },
  );
});
