/**
 * `s3://bucket[/prefix][?endpoint=http://host:port&region=…&pathStyle=true]`.
 *
 * 1. What the address does not say comes from the AWS SDK's usual places: environment, profile files, container or instance role.
 * 2. Credentials are never part of it: an address is logged, shown and passed on as a process argument.
 */
import { StoreAddressError } from './errors.js';

export interface S3Address {
  bucket: string;
  /** Empty, or ends with `/`. */
  prefix: string;
  endpoint: string | null;
  region: string | null;
  /** `host/bucket/key` instead of `bucket.host/key`: what most servers other than Amazon's need. */
  pathStyle: boolean;
  /** The address in its shortest form. */
  url: string;
}

const SETTINGS = ['endpoint', 'region', 'pathStyle'];
const FORM =
  's3://bucket/prefix?endpoint=http://host:port&region=name&pathStyle=true (all but the bucket may be left out)';

export function parseS3Address(text: string): S3Address {
  if (/^s3:\/\/[^/?]*@/i.test(text)) throw withCredentials();
  const [place = '', query = ''] = text.slice('s3://'.length).split(/\?(.*)/s);
  const [bucket = '', ...folders] = place.split('/');
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) {
    throw refused(`a bucket name of 3 to 63 lower-case letters, digits, "." and "-", got "${bucket}"`);
  }
  if (folders.at(-1) === '') folders.pop();
  for (const folder of folders) {
    if (!/^[A-Za-z0-9._=-]+$/.test(folder) || /^\.+$/.test(folder)) {
      throw refused(`a prefix of letters, digits, ".", "_", "=" and "-" between single slashes, got "${folder}"`);
    }
  }
  const settings = new URLSearchParams(query);
  for (const name of settings.keys()) {
    if (!SETTINGS.includes(name)) throw refused(`only ${SETTINGS.join(', ')} after "?", got "${name}"`);
  }
  const endpoint = endpointOf(settings.get('endpoint'));
  const region = settings.get('region');
  if (region !== null && !/^[a-z0-9-]{1,40}$/.test(region)) throw refused(`a region name, got "${region}"`);
  const prefix = folders.length === 0 ? '' : `${folders.join('/')}/`;
  const elsewhere = endpoint ?? process.env['AWS_ENDPOINT_URL_S3'] ?? process.env['AWS_ENDPOINT_URL'] ?? '';
  const pathStyle = booleanOf(settings.get('pathStyle')) ?? elsewhere !== '';
  const url = `s3://${[bucket, ...folders].join('/')}${query === '' ? '' : `?${query}`}`;
  return { bucket, prefix, endpoint, region, pathStyle, url };
}

function endpointOf(text: string | null): string | null {
  if (text === null) return null;
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw refused(`an endpoint such as http://host:9000, got one that is no address`);
  }
  if (url.username !== '' || url.password !== '') throw withCredentials();
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw refused(`an endpoint that begins with http:// or https://, got "${url.protocol}//"`);
  }
  return text;
}

function booleanOf(text: string | null): boolean | null {
  if (text === null) return null;
  if (text === 'true' || text === 'false') return text === 'true';
  throw refused(`pathStyle=true or pathStyle=false, got "${text}"`);
}

/** Shows nothing of the address. */
function withCredentials(): StoreAddressError {
  return new StoreAddressError(
    'artifact store: expected an s3:// address without credentials, got one with "@"; ' +
      'give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in a profile, or as a role',
  );
}

function refused(what: string): StoreAddressError {
  return new StoreAddressError(`artifact store: expected ${what}; the form is ${FORM}`);
}
