import type { CompletionRequest } from './completion'

const shellQuoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** The request as a curl command. */
export function asCurl(base: string, request: CompletionRequest): string {
  return [
    `curl ${base}v1/chat/completions \\`,
    `  -H "Authorization: Bearer $NEXUS_API_KEY" \\`,
    `  -H "Content-Type: application/json" \\`,
    `  -d ${shellQuoted(JSON.stringify(request, null, 2))}`,
  ].join('\n')
}

function pythonValue(value: unknown, indent: string): string {
  const inner = `${indent}    `
  if (value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (Array.isArray(value))
    return value.length === 0
      ? '[]'
      : `[\n${value.map((each) => `${inner}${pythonValue(each, inner)},`).join('\n')}\n${indent}]`
  if (typeof value === 'object') {
    const rows = Object.entries(value as Record<string, unknown>).map(
      ([key, each]) => `${JSON.stringify(key)}: ${pythonValue(each, inner)}`,
    )
    return `{${rows.join(', ')}}`
  }
  return JSON.stringify(value)
}

/** The request as a Python program with the official OpenAI client. */
export function asPython(base: string, request: CompletionRequest): string {
  const rows = Object.entries(request).map(([key, value]) => `    ${key}=${pythonValue(value, '    ')},`)
  return [
    'import os',
    '',
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url="${base}v1", api_key=os.environ["NEXUS_API_KEY"])`,
    'stream = client.chat.completions.create(',
    ...rows,
    '    stream=True,',
    ')',
    'for chunk in stream:',
    '    if chunk.choices:',
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
  ].join('\n')
}
