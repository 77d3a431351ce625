import type { ReactNode } from 'react'
import { address } from '../api/place'
import './gate.css'

/** The frame of the pages in front of the dashboard. */
export function Gate({ title, about, children }: { title: string; about: ReactNode; children: ReactNode }): ReactNode {
  return (
    <main className="gate">
      <div className="gate-card">
        <img src={address('/favicon.svg')} alt="" width={44} height={44} />
        <h1>{title}</h1>
        <p>{about}</p>
        {children}
      </div>
      <p className="gate-foot">NEXUS: language, vision, prediction and automation in one place</p>
    </main>
  )
}
